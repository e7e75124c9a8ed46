// A transaction's view of the state: the shared base, its own writes over it, and a journal to undo them.
//
// Every account and slot that a transaction touches gets one entry with the base value it saw and the current one.
// The entries are at once the read set and the write set, with values: what a block's parallel execution validates
// against and commits. The base is never written here.
#pragma once

#include "core/native/crypto/keccak.hpp"
#include "worker/evm/native/arenas.hpp"
#include "worker/evm/native/lane_memory.hpp"

namespace warpgrid::evm {

WG_FN u64 mix(u64 x) {  // MurmurHash3's finaliser
    x ^= x >> 33;
    x *= 0xff51afd7ed558ccdull;
    x ^= x >> 33;
    x *= 0xc4ceb9fe1a85ec53ull;
    return x ^ x >> 33;
}

WG_FN u64 hash_account(u32 world, const Address& a) {
    const u64 low = a.w[0] | static_cast<u64>(a.w[1]) << 32, high = a.w[2] | static_cast<u64>(a.w[3]) << 32;
    return mix(mix(low ^ (static_cast<u64>(a.w[4]) << 32 | world)) ^ high);
}

WG_FN u64 hash_slot(u32 account, const u256& key) {
    return mix(mix(key.w[0] ^ (key.w[1] << 1) ^ account * 0x9e3779b97f4a7c15ull) ^ key.w[2] ^ (key.w[3] << 1));
}

// The precompile at an address, or None; quick for the addresses that hold none.
WG_FN Precompile precompile_of(const Address& a, Fork fork) {
    if (a.w[0] | a.w[1] | a.w[2] | a.w[3]) return Precompile::None;
    return precompile_at(reinterpret_cast<const u8*>(&a), fork);
}

// ---- the base ---------------------------------------------------------------------------------------------------------

// Record number of an account of the base, or NONE.
WG_FN u32 find_account(const World& world, u32 world_number, const Address& address) {
    for (u64 i = hash_account(world_number, address);; ++i) {
        const u32 record = world.account_index[i & world.account_index_mask];
        if (record == 0) return NONE;
        const AccountRecord& candidate = world.accounts[record - 1];
        if (candidate.address == address && candidate.world == world_number) return record - 1;
    }
}

// Record number of a slot of the base, or NONE.
WG_FN u32 find_slot(const World& world, u32 account_record, const u256& key) {
    for (u64 i = hash_slot(account_record, key);; ++i) {
        const u32 record = world.slot_index[i & world.slot_index_mask];
        if (record == 0) return NONE;
        const SlotRecord& candidate = world.slots[record - 1];
        if (candidate.key == key && candidate.account == account_record) return record - 1;
    }
}

// Answer to a precompile request, or null. Keys are digests, so that any word of one is its hash.
WG_FN const PrecompileAnswer* find_answer(const World& world, const u256& key) {
    if (world.answer_count == 0) return nullptr;
    for (u64 i = key.w[0];; ++i) {
        const PrecompileAnswer& answer = world.answers[i & (world.answer_count - 1)];
        if (answer.status == ANSWER_FREE) return nullptr;
        if (answer.key == key) return &answer;
    }
}

// Whom a transaction asks for state that the base lacks. On a CPU the host answers in place, where it can; on a GPU
// nobody does, and the transaction parks.
template <u32 LANES>
struct Asker {
    WG_FN bool ask(const Request&) const { return false; }
};
template <>
struct Asker<1> {
    bool (*answer)(void* host, const Request& request) = nullptr;
    void* host = nullptr;
    bool ask(const Request& wanted) const { return answer && answer(host, wanted); }
};

// ---- entries ------------------------------------------------------------------------------------------------------------

constexpr u32 LINEAR_ENTRIES_MAX = 16;  // up to here a scan is faster than an index

// Which entry holds a key: a scan of hashes while there are few, then an index that doubles as it fills.
template <u32 LANES>
struct EntryIndex {
    LaneMemory<LANES> memory;
    u64 index;        // section
    u64 index_max;    // its entries
    u64 hashes;       // where entry 0 keeps its hash
    u64 stride;       // bytes of an entry
    u64 mask;         // of the part in use, 0 while scanning
    u32 count, count_max;

    WG_FN u32 hash_of(u32 entry) const { return memory.template load<u32>(hashes + entry * stride); }

    // Calls equal(entry) for entries with this hash until one says yes; that entry, or NONE.
    template <class Equal>
    WG_FN u32 find(u32 hash, Equal equal) const {
        if (mask == 0) {
            for (u32 i = 0; i < count; ++i) {
                if (hash_of(i) == hash && equal(i)) return i;
            }
            return NONE;
        }
        for (u64 i = hash;; ++i) {
            const u32 entry = memory.template load<u32>(index + (i & mask) * 4);
            if (entry == 0) return NONE;
            if (hash_of(entry - 1) == hash && equal(entry - 1)) return entry - 1;
        }
    }

    // Room for one more, or NONE when the section is full. The caller has written the entry's hash before `added`.
    WG_FN u32 next() const { return count < count_max ? count : NONE; }

    WG_FN void added() {
        ++count;
        if (mask == 0 ? count > LINEAR_ENTRIES_MAX && index_max : count > mask / 2) {
            rebuild();
        } else if (mask) {
            insert(count - 1);
        }
    }

   private:
    WG_FN void insert(u32 entry) const {
        u64 i = hash_of(entry);
        while (memory.template load<u32>(index + (i & mask) * 4)) ++i;
        memory.template store<u32>(index + (i & mask) * 4, entry + 1);
    }
    WG_FN void rebuild() {
        u64 entries = mask ? (mask + 1) * 4 : 64;
        if (entries > index_max) entries = index_max;
        if (entries == mask + 1) {
            insert(count - 1);
            return;
        }
        mask = entries - 1;
        memory.zero(index, entries * 4);
        for (u32 i = 0; i < count; ++i) insert(i);
    }
};

template <u32 LANES>
struct State {
    const World* world;
    LaneMemory<LANES> memory;
    const ArenaLayout* layout;
    EntryIndex<LANES> accounts, slots;
    u32 journal_count, journal_max;
    u32 world_number;
    Fork fork;
    Address coinbase;
    Halt fault;       // Park or Overflow, once the transaction cannot go on here
    Request request;  // when Park
    [[no_unique_address]] Asker<LANES> asker;

    WG_FN void begin(const World* base, LaneMemory<LANES> lane, const ArenaSizes& sizes, const ArenaLayout* sections,
                     u32 number, const BlockEnvironment& block) {
        world = base;
        memory = lane;
        layout = sections;
        accounts = {lane, layout->account_index, sizes.index_entries, layout->accounts + WG_OFFSET(AccountEntry, hash),
                    sizeof(AccountEntry), 0, 0, static_cast<u32>(sizes.accounts)};
        slots = {lane, layout->slot_index, sizes.index_entries, layout->slots + WG_OFFSET(SlotEntry, hash),
                 sizeof(SlotEntry), 0, 0, static_cast<u32>(sizes.slots)};
        journal_count = 0;
        journal_max = static_cast<u32>(sizes.journal_entries);
        world_number = number;
        fork = static_cast<Fork>(block.fork);
        coinbase = block.coinbase;
        fault = Halt::None;
    }

    // ---- accounts: fields of entry i ----
    WG_FN u64 account_at(u32 i) const { return layout->accounts + i * sizeof(AccountEntry); }
    template <class T>
    WG_FN T account_field(u32 i, u64 offset) const {
        return memory.template load<T>(account_at(i) + offset);
    }
    WG_FN u32 account_flags(u32 i) const { return account_field<u32>(i, WG_OFFSET(AccountEntry, flags)); }
    WG_FN u64 nonce(u32 i) const { return account_field<u64>(i, WG_OFFSET(AccountEntry, nonce)); }
    WG_FN u32 code(u32 i) const { return account_field<u32>(i, WG_OFFSET(AccountEntry, code)); }
    WG_FN u256 balance(u32 i) const { return memory.load_word(account_at(i) + WG_OFFSET(AccountEntry, balance)); }
    WG_FN Address address(u32 i) const {
        const Chunk first = account_field<Chunk>(i, 0);
        return {{static_cast<u32>(first.low), static_cast<u32>(first.low >> 32), static_cast<u32>(first.high),
                 static_cast<u32>(first.high >> 32), account_field<u32>(i, 16)}};
    }
    WG_FN bool is_empty(u32 i) const { return nonce(i) == 0 && code(i) == CODE_EMPTY && is_zero(balance(i)); }

    // The entry of an account, made if need be but not yet read from the base; NONE with `fault` when there is no room.
    WG_NOINLINE u32 enter_account(const Address& wanted) {
        const u32 hash = static_cast<u32>(hash_account(0, wanted));
        const u32 found = accounts.find(hash, [&](u32 i) { return address(i) == wanted; });
        if (found != NONE) return found;
        const u32 entry = accounts.next();
        if (entry == NONE) {
            fault = Halt::Overflow;
            return NONE;
        }
        const bool warm = wanted == coinbase || precompile_of(wanted, fork) != Precompile::None;
        AccountEntry fresh = {};
        fresh.address = wanted;
        fresh.flags = warm ? u32{ENTRY_WARM} : 0u;
        fresh.base = NONE;
        fresh.hash = hash;
        memory.store_struct(account_at(entry), fresh);
        accounts.added();
        return entry;
    }

    // Reads the base into an entry, once. False with `fault` when the base does not know the account.
    WG_FN bool load_account(u32 i) { return account_flags(i) & ENTRY_LOADED || load_account_cold(i); }

    WG_NOINLINE bool load_account_cold(u32 i) {
        AccountEntry entry = memory.template load_struct<AccountEntry>(account_at(i));
        u32 record = find_account(*world, world_number, entry.address);
        if (record == NONE && !world->accounts_complete) {
            if (!park(RequestKind::Account, entry.address, {})) return false;
            record = find_account(*world, world_number, entry.address);
        }
        if (record != NONE) {
            const AccountRecord& base = world->accounts[record];
            if (base.code == CODE_UNKNOWN) return park(RequestKind::Code, entry.address, {});
            entry.base = record;
            if (base.flags & ACCOUNT_EXISTS) {
                entry.nonce = entry.original_nonce = base.nonce;
                entry.balance = entry.original_balance = base.balance;
                entry.code = entry.original_code = base.code;
                entry.flags |= ENTRY_EXISTS | ENTRY_EXISTED;
                if (base.flags & ACCOUNT_HAS_STORAGE) entry.flags |= ENTRY_STORAGE;
            }
        }
        entry.flags |= ENTRY_LOADED;
        memory.store_struct(account_at(i), entry);
        return true;
    }

    // Entry of an account with its values; NONE with `fault`.
    WG_FN u32 account(const Address& wanted) {
        const u32 i = enter_account(wanted);
        return i != NONE && load_account(i) ? i : NONE;
    }

    // Marks a loaded account as accessed; true if it was cold (EIP-2929).
    WG_FN bool warm_account(u32 i) {
        const u32 flags = account_flags(i);
        if (flags & ENTRY_WARM) return false;
        journal_account(i);
        set_account_flags(i, flags | ENTRY_WARM);
        return true;
    }

    // The same for an instruction whose price depends on it, which eth_createAccessList wants to know.
    WG_FN bool ask_account(u32 i) {
        set_account_flags(i, account_flags(i) | ENTRY_ASKED);
        return warm_account(i);
    }

    WG_FN void set_account_flags(u32 i, u32 flags) {
        memory.template store<u32>(account_at(i) + WG_OFFSET(AccountEntry, flags), flags);
    }

    // Every setter journals the old values first, and applies EIP-161: a written account exists unless it is empty.
    WG_FN void set_balance(u32 i, const u256& value) {
        journal_account(i);
        memory.store_word(account_at(i) + WG_OFFSET(AccountEntry, balance), value);
        written(i, 0);
    }
    WG_FN void set_nonce(u32 i, u64 value) {
        journal_account(i);
        memory.template store<u64>(account_at(i) + WG_OFFSET(AccountEntry, nonce), value);
        written(i, 0);
    }
    WG_FN void set_code(u32 i, u32 value) {
        journal_account(i);
        memory.template store<u32>(account_at(i) + WG_OFFSET(AccountEntry, code), value);
        written(i, ENTRY_NEW_CODE);
    }
    WG_FN void mark_account(u32 i, u32 flag) {
        journal_account(i);
        set_account_flags(i, account_flags(i) | flag);
    }
    WG_FN void written(u32 i, u32 more) {
        const u32 flags = account_flags(i) | ENTRY_WRITTEN | more;
        set_account_flags(i, is_empty(i) ? flags & ~ENTRY_EXISTS : flags | ENTRY_EXISTS);
    }

    // ---- slots ----
    WG_FN u64 slot_at(u32 i) const { return layout->slots + i * sizeof(SlotEntry); }
    WG_FN u32 slot_flags(u32 i) const { return memory.template load<u32>(slot_at(i) + WG_OFFSET(SlotEntry, flags)); }
    WG_FN u256 slot_value(u32 i) const { return memory.load_word(slot_at(i) + WG_OFFSET(SlotEntry, value)); }
    WG_FN u256 slot_original(u32 i) const { return memory.load_word(slot_at(i) + WG_OFFSET(SlotEntry, original)); }

    // The entry of a slot of account entry `owner`; kind is 0 or ENTRY_TRANSIENT. NONE with `fault`.
    WG_NOINLINE u32 enter_slot(u32 owner, const u256& key, u32 kind) {
        const u32 hash = static_cast<u32>(hash_slot(owner + kind, key));
        const u32 found = slots.find(hash, [&](u32 i) {
            const Chunk tail = memory.template load<Chunk>(slot_at(i) + WG_OFFSET(SlotEntry, account));
            return static_cast<u32>(tail.low) == owner && (static_cast<u32>(tail.low >> 32) & ENTRY_TRANSIENT) == kind &&
                   memory.load_word(slot_at(i)) == key;
        });
        if (found != NONE) return found;
        const u32 entry = slots.next();
        if (entry == NONE) {
            fault = Halt::Overflow;
            return NONE;
        }
        SlotEntry fresh = {};
        fresh.key = key;
        fresh.account = owner;
        fresh.flags = kind | (kind ? u32{ENTRY_LOADED} : 0u);
        fresh.hash = hash;
        fresh.base = NONE;
        memory.store_struct(slot_at(entry), fresh);
        slots.added();
        return entry;
    }

    // Reads the base into a slot's entry, once. False with `fault` when the base does not know it.
    WG_FN bool load_slot(u32 i) { return slot_flags(i) & ENTRY_LOADED || load_slot_cold(i); }

    WG_NOINLINE bool load_slot_cold(u32 i) {
        SlotEntry entry = memory.template load_struct<SlotEntry>(slot_at(i));
        if (!load_account(entry.account)) return false;
        const u32 owner_flags = account_flags(entry.account);
        const u32 owner = account_field<u32>(entry.account, WG_OFFSET(AccountEntry, base));
        if (owner != NONE && !(owner_flags & ENTRY_CREATED)) {
            entry.base = find_slot(*world, owner, entry.key);
            if (entry.base == NONE && !(world->accounts[owner].flags & ACCOUNT_STORAGE_COMPLETE)) {
                if (!park(RequestKind::Slot, address(entry.account), entry.key)) return false;
                entry.base = find_slot(*world, owner, entry.key);
            }
            if (entry.base != NONE) entry.value = entry.original = world->slots[entry.base].value;
        }
        entry.flags |= ENTRY_LOADED;
        memory.store_struct(slot_at(i), entry);
        return true;
    }

    WG_FN bool warm_slot(u32 i) {
        const u32 flags = slot_flags(i);
        if (flags & ENTRY_WARM) return false;
        journal_slot(i);
        set_slot_flags(i, flags | ENTRY_WARM);
        return true;
    }
    WG_FN void set_slot_flags(u32 i, u32 flags) {
        memory.template store<u32>(slot_at(i) + WG_OFFSET(SlotEntry, flags), flags);
    }
    WG_FN void set_slot(u32 i, const u256& value) {
        journal_slot(i);
        memory.store_word(slot_at(i) + WG_OFFSET(SlotEntry, value), value);
        set_slot_flags(i, slot_flags(i) | ENTRY_WRITTEN);
    }

    // ---- journal: of loaded entries only, so that undoing never forgets what was read from the base ----
    WG_FN void journal_account(u32 i) {
        append_journal({i, account_flags(i), nonce(i), balance(i), code(i), {}});
    }
    WG_FN void journal_slot(u32 i) { append_journal({i | JOURNAL_SLOT, slot_flags(i), 0, slot_value(i), 0, {}}); }

    WG_FN void append_journal(const JournalEntry& entry) {
        if (journal_count >= journal_max) {
            fault = Halt::Overflow;
            return;
        }
        memory.store_struct(layout->journal + journal_count * sizeof(JournalEntry), entry);
        ++journal_count;
    }

    // Undoes every change since the journal had `length` entries.
    WG_NOINLINE void revert_to(u32 length) {
        while (journal_count > length) {
            --journal_count;
            const auto old =
                memory.template load_struct<JournalEntry>(layout->journal + journal_count * sizeof(JournalEntry));
            const u32 i = old.entry & ~JOURNAL_SLOT;
            if (old.entry & JOURNAL_SLOT) {
                memory.store_word(slot_at(i) + WG_OFFSET(SlotEntry, value), old.value);
                set_slot_flags(i, old.flags);
            } else {
                memory.template store<u64>(account_at(i) + WG_OFFSET(AccountEntry, nonce), old.nonce);
                memory.store_word(account_at(i) + WG_OFFSET(AccountEntry, balance), old.value);
                memory.template store<u32>(account_at(i) + WG_OFFSET(AccountEntry, code), old.code);
                set_account_flags(i, old.flags | (account_flags(i) & ENTRY_ASKED));
            }
        }
    }

    // Asks for what the base lacks: true once it holds that, false with `fault` when the transaction must wait.
    WG_FN bool park(RequestKind kind, const Address& who, const u256& key) {
        request = {};
        request.kind = kind;
        request.address = who;
        request.key = key;
        if (asker.ask(request)) return true;
        fault = Halt::Park;
        return false;
    }
};

}  // namespace warpgrid::evm
