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

// ---- the base -------------------------------------------------------------------------------------------------------

// The first place from `i` on that is free or may be of `hash`. A loop of its own, so that lanes of a GPU whose probes
// differ in length are together again when they read the records.
WG_FN IndexPlace probe(const IndexPlace* index, u64 mask, u64 hash, u64& i) {
    IndexPlace place = index[i & mask];
    while (place != 0 && (place ^ hash) >> 32) place = index[++i & mask];
    return place;
}

// Record number of an account of the base, or NONE.
WG_FN u32 find_account(const World& world, u32 world_number, const Address& address) {
    const u64 hash = hash_account(world_number, address);
    for (u64 i = hash;; ++i) {
        const IndexPlace place = probe(world.account_index, world.account_index_mask, hash, i);
        if (place == 0) return NONE;
        const u32 record = static_cast<u32>(place);
        const AccountRecord& candidate = world.accounts[record - 1];
        if (candidate.address == address && candidate.world == world_number) return record - 1;
    }
}

// Record number of a slot of the base, or NONE.
WG_FN u32 find_slot(const World& world, u32 account_record, const u256& key) {
    const u64 hash = hash_slot(account_record, key);
    for (u64 i = hash;; ++i) {
        const IndexPlace place = probe(world.slot_index, world.slot_index_mask, hash, i);
        if (place == 0) return NONE;
        const u32 record = static_cast<u32>(place);
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
    WG_FN bool ask(const Request& wanted) const { return answer && answer(host, wanted); }
};

// ---- entries --------------------------------------------------------------------------------------------------------

constexpr u32 LINEAR_ENTRIES_MAX = 16;  // up to here a scan is faster than an index

// Where a table of entries lies in a lane's memory.
struct EntryTable {
    u64 index;      // section
    u64 index_max;  // its entries; 0: always scan
    u64 hashes;     // section: u32 for each entry
    u64 count_max;
};

// Four 32-bit values that lie side by side: as many as one access brings.
struct FourWords {
    u32 values[4];
    // Bit i: value i is `wanted`.
    WG_FN u32 matches(u32 wanted) const {
        u32 found = 0;
        WG_UNROLL
        for (u32 i = 0; i < 4; ++i) found |= static_cast<u32>(values[i] == wanted) << i;
        return found;
    }
};
template <u32 LANES>
WG_FN FourWords load_four_words(const LaneMemory<LANES>& memory, u64 offset) {
    const Chunk chunk = memory.template load<Chunk>(offset);
    return {{static_cast<u32>(chunk.low), static_cast<u32>(chunk.low >> 32), static_cast<u32>(chunk.high),
             static_cast<u32>(chunk.high >> 32)}};
}

// Which entry of a table holds a key: a scan of hashes while there are few, then an index that doubles as it fills.
template <u32 LANES>
struct EntryIndex {
    using Memory = LaneMemory<LANES>;
    u64 mask;  // of the part of the index in use, 0 while scanning
    u32 count;

    static WG_FN u32 hash_of(Memory memory, const EntryTable& table, u32 entry) {
        return memory.template load<u32>(table.hashes + entry * sizeof(u32));
    }

    // Calls equal(entry) for entries with this hash until one says yes; that entry, or NONE.
    template <class Equal>
    WG_FN u32 find(Memory memory, const EntryTable& table, u32 hash, Equal equal) const {
        if (table.index_max == 0 || mask == 0) {
            for (u32 first = 0; first < count; first += 4) {
                u32 found = load_four_words(memory, table.hashes + first * sizeof(u32)).matches(hash);
                for (; found; found &= found - 1) {
                    const u32 i = first + count_trailing_zeros(found);
                    if (i < count && equal(i)) return i;
                }
            }
            return NONE;
        }
        for (u64 i = hash;; ++i) {
            const u32 entry = memory.template load<u32>(table.index + (i & mask) * 4);
            if (entry == 0) return NONE;
            if (hash_of(memory, table, entry - 1) == hash && equal(entry - 1)) return entry - 1;
        }
    }

    // Counts one more entry.
    WG_FN void added(Memory memory, const EntryTable& table, u32 hash) {
        memory.template store<u32>(table.hashes + count * sizeof(u32), hash);
        ++count;
        if (table.index_max == 0) return;
        if (mask == 0 ? count > LINEAR_ENTRIES_MAX : count > mask / 2) {
            rebuild(memory, table);
        } else if (mask) {
            insert(memory, table, count - 1);
        }
    }

   private:
    WG_FN void insert(Memory memory, const EntryTable& table, u32 entry) const {
        u64 i = hash_of(memory, table, entry);
        while (memory.template load<u32>(table.index + (i & mask) * 4)) ++i;
        memory.template store<u32>(table.index + (i & mask) * 4, entry + 1);
    }
    WG_FN void rebuild(Memory memory, const EntryTable& table) {
        u64 entries = mask ? (mask + 1) * 4 : 64;
        if (entries > table.index_max) entries = table.index_max;
        if (entries == mask + 1) {
            insert(memory, table, count - 1);
            return;
        }
        mask = entries - 1;
        memory.zero(table.index, entries * 4);
        for (u32 i = 0; i < count; ++i) insert(memory, table, i);
    }
};

// Warm from the start: precompiles (EIP-2929) and the coinbase (EIP-3651).
WG_FN bool is_always_warm(const Address& a, const BlockEnvironment& block) {
    return a == block.coinbase || precompile_of(a, static_cast<Fork>(block.fork)) != Precompile::None;
}

// An account's entry before its values are read.
WG_FN AccountEntry fresh_account(const Address& address, const BlockEnvironment& block) {
    AccountEntry fresh = {};
    fresh.address = address;
    fresh.flags = is_always_warm(address, block) ? u32{ENTRY_WARM} : 0u;
    fresh.base = NONE;
    fresh.hash = static_cast<u32>(hash_account(0, address));
    return fresh;
}

// Reads the base into an entry. What must be asked for when the base does not know it, else None.
WG_FN RequestKind read_account(const World& world, u32 world_number, AccountEntry& entry) {
    const u32 record = find_account(world, world_number, entry.address);
    if (record == NONE) {
        if (!world.accounts_complete) return RequestKind::Account;
    } else {
        const AccountRecord& base = world.accounts[record];
        if (base.code == CODE_UNKNOWN) return RequestKind::Code;
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
    return RequestKind::None;
}

// `Context` says where the base and the arenas are (machine.hpp).
template <class Context>
struct State {
    static constexpr u32 LANES = Context::LANES;
    Context context;
    LaneMemory<LANES> memory;
    const BlockEnvironment* block;
    u32 world_number;
    Halt fault;  // Park or Overflow, once the transaction cannot go on here
    EntryIndex<LANES> accounts, slots;
    u32 journal_count;
    Checkpoint start;  // of the running frame: entries made since are no journal's business
    Request request;   // when Park
    [[no_unique_address]] Asker<LANES> asker;

    WG_FN void begin(LaneMemory<LANES> lane, u32 number, const BlockEnvironment& environment) {
        memory = lane;
        block = &environment;
        world_number = number;
        fault = Halt::None;
        accounts = slots = {0, 0};
        journal_count = 0;
        start = {0, 0, 0};
    }

    WG_FN EntryTable account_table() const {
        const auto& layout = context.layout();
        const auto& sizes = context.sizes();
        return {layout.account_index, sizes.index_entries, layout.account_hashes, sizes.accounts};
    }
    WG_FN EntryTable slot_table() const {
        const auto& layout = context.layout();
        const auto& sizes = context.sizes();
        return {layout.slot_index, sizes.index_entries, layout.slot_hashes, sizes.slots};
    }

    // ---- accounts: fields of entry i ----
    WG_FN u64 account_at(u32 i) const { return context.layout().accounts + i * sizeof(AccountEntry); }
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
        const AccountEntry fresh = fresh_account(wanted, *block);
        const u32 found = find_account_entry(fresh.hash, wanted);
        return found != NONE ? found : add_account(fresh);
    }

    // Entry of an account with its values, which are read from the base once; NONE with `fault`.
    WG_NOINLINE u32 account(const Address& wanted) {
        AccountEntry fresh = fresh_account(wanted, *block);
        const u32 found = find_account_entry(fresh.hash, wanted);
        if (found != NONE) return load_account(found) ? found : NONE;
        return read_base(fresh) ? add_account(fresh) : NONE;
    }

    // Reads the base into an entry, once. False with `fault` when the base does not know the account.
    WG_FN bool load_account(u32 i) { return account_flags(i) & ENTRY_LOADED || load_account_cold(i); }

    WG_NOINLINE bool load_account_cold(u32 i) {
        AccountEntry entry = memory.template load_struct<AccountEntry>(account_at(i));
        if (!read_base(entry)) return false;
        memory.store_struct(account_at(i), entry);
        return true;
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
        const u32 flags = account_flags(i);
        const bool cold = !(flags & ENTRY_WARM);
        if (cold) journal_account(i);
        set_account_flags(i, flags | ENTRY_WARM | ENTRY_ASKED);
        return cold;
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
    WG_FN u64 slot_at(u32 i) const { return context.layout().slots + i * sizeof(SlotEntry); }
    WG_FN u32 slot_flags(u32 i) const { return memory.template load<u32>(slot_at(i) + WG_OFFSET(SlotEntry, flags)); }
    WG_FN u256 slot_value(u32 i) const { return memory.load_word(slot_at(i) + WG_OFFSET(SlotEntry, value)); }
    WG_FN u256 slot_original(u32 i) const { return memory.load_word(slot_at(i) + WG_OFFSET(SlotEntry, original)); }

    // The entry of a storage slot of account entry `owner`, made if need be but not yet read; NONE with `fault`.
    WG_NOINLINE u32 enter_slot(u32 owner, const u256& key) {
        const u32 hash = slot_hash(owner, key, 0), found = find_slot_entry(hash, owner, key, 0);
        return found != NONE ? found : add_slot(fresh_slot(hash, owner, key, 0));
    }

    // Entry of a storage slot with its value, which is read from the base once; NONE with `fault`.
    WG_NOINLINE u32 slot(u32 owner, const u256& key) {
        const u32 hash = slot_hash(owner, key, 0), found = find_slot_entry(hash, owner, key, 0);
        if (found != NONE) return slot_flags(found) & ENTRY_LOADED || load_slot_cold(found) ? found : NONE;
        SlotEntry fresh = fresh_slot(hash, owner, key, 0);
        return read_base(fresh) ? add_slot(fresh) : NONE;
    }

    // Entry of a transient slot (EIP-1153); NONE with `fault`.
    WG_NOINLINE u32 transient_slot(u32 owner, const u256& key) {
        const u32 hash = slot_hash(owner, key, ENTRY_TRANSIENT);
        const u32 found = find_slot_entry(hash, owner, key, ENTRY_TRANSIENT);
        return found != NONE ? found : add_slot(fresh_slot(hash, owner, key, ENTRY_TRANSIENT | ENTRY_LOADED));
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

    // ---- undoing ----
    // A frame that fails takes back what changed since its start. Entries from before are restored from the journal;
    // those made since return to what the base gave them, which they remember, so that a transaction that meets
    // everything in its only frame keeps no journal. Nothing read from the base is ever forgotten.

    // Begins a stretch that can be undone; the caller puts `start` back when it ends without a frame.
    WG_FN Checkpoint open_stretch() { return start = {journal_count, accounts.count, slots.count}; }

    WG_FN void journal_account(u32 i) {
        if (i < start.accounts) append_journal({i, account_flags(i), nonce(i), balance(i), code(i), {}});
    }
    WG_FN void journal_slot(u32 i) {
        if (i < start.slots) append_journal({i | JOURNAL_SLOT, slot_flags(i), 0, slot_value(i), 0, {}});
    }

    WG_NOINLINE void revert_to(const Checkpoint& checkpoint) {
        while (journal_count > checkpoint.journal) undo_last();
        for (u32 i = checkpoint.accounts; i < accounts.count; ++i) reset_account(i);
        for (u32 i = checkpoint.slots; i < slots.count; ++i) reset_slot(i);
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

   private:
    WG_FN u32 find_account_entry(u32 hash, const Address& wanted) const {
        return accounts.find(memory, account_table(), hash, [&](u32 i) { return address(i) == wanted; });
    }
    WG_FN u32 add_account(const AccountEntry& fresh) {
        const u32 entry = accounts.count;
        if (entry == account_table().count_max) {
            fault = Halt::Overflow;
            return NONE;
        }
        memory.store_struct(account_at(entry), fresh);
        accounts.added(memory, account_table(), fresh.hash);
        return entry;
    }
    WG_FN bool read_base(AccountEntry& entry) {
        const RequestKind missing = read_account(context.world(), world_number, entry);
        if (missing == RequestKind::None) return true;
        return park(missing, entry.address, {}) &&
               read_account(context.world(), world_number, entry) == RequestKind::None;
    }
    WG_FN void reset_account(u32 i) {
        const u32 flags = account_flags(i) & (ENTRY_LOADED | ENTRY_EXISTED | ENTRY_STORAGE | ENTRY_ASKED);
        const u32 exists = flags & ENTRY_EXISTED ? u32{ENTRY_EXISTS} : 0u;
        const u32 warm = is_always_warm(address(i), *block) ? u32{ENTRY_WARM} : 0u;
        set_account_flags(i, flags | exists | warm);
        const u64 at = account_at(i);
        memory.template store<u64>(at + WG_OFFSET(AccountEntry, nonce),
                                   account_field<u64>(i, WG_OFFSET(AccountEntry, original_nonce)));
        memory.store_word(at + WG_OFFSET(AccountEntry, balance),
                          memory.load_word(at + WG_OFFSET(AccountEntry, original_balance)));
        memory.template store<u32>(at + WG_OFFSET(AccountEntry, code),
                                   account_field<u32>(i, WG_OFFSET(AccountEntry, original_code)));
    }

    static WG_FN u32 slot_hash(u32 owner, const u256& key, u32 transient) {
        return static_cast<u32>(hash_slot(owner + transient, key));
    }
    WG_FN u32 find_slot_entry(u32 hash, u32 owner, const u256& key, u32 transient) const {
        return slots.find(memory, slot_table(), hash, [&](u32 i) {
            const Chunk tail = memory.template load<Chunk>(slot_at(i) + WG_OFFSET(SlotEntry, account));
            const u32 flags = static_cast<u32>(tail.low >> 32);
            return static_cast<u32>(tail.low) == owner && (flags & ENTRY_TRANSIENT) == transient &&
                   memory.load_word(slot_at(i)) == key;
        });
    }
    static WG_FN SlotEntry fresh_slot(u32 hash, u32 owner, const u256& key, u32 flags) {
        SlotEntry fresh = {};
        fresh.key = key;
        fresh.account = owner;
        fresh.flags = flags;
        fresh.hash = hash;
        fresh.base = NONE;
        return fresh;
    }
    WG_FN u32 add_slot(const SlotEntry& fresh) {
        const u32 entry = slots.count;
        if (entry == slot_table().count_max) {
            fault = Halt::Overflow;
            return NONE;
        }
        memory.store_struct(slot_at(entry), fresh);
        slots.added(memory, slot_table(), fresh.hash);
        return entry;
    }
    WG_NOINLINE bool load_slot_cold(u32 i) {
        SlotEntry entry = memory.template load_struct<SlotEntry>(slot_at(i));
        if (!read_base(entry)) return false;
        memory.store_struct(slot_at(i), entry);
        return true;
    }
    WG_FN bool read_base(SlotEntry& entry) {
        if (!load_account(entry.account)) return false;
        const World& world = context.world();
        const u32 owner = account_field<u32>(entry.account, WG_OFFSET(AccountEntry, base));
        if (owner != NONE && !(account_flags(entry.account) & ENTRY_CREATED)) {
            entry.base = find_slot(world, owner, entry.key);
            if (entry.base == NONE && !(world.accounts[owner].flags & ACCOUNT_STORAGE_COMPLETE)) {
                if (!park(RequestKind::Slot, address(entry.account), entry.key)) return false;
                entry.base = find_slot(world, owner, entry.key);
            }
            if (entry.base != NONE) entry.value = entry.original = world.slots[entry.base].value;
        }
        entry.flags |= ENTRY_LOADED;
        return true;
    }
    WG_FN void reset_slot(u32 i) {
        memory.store_word(slot_at(i) + WG_OFFSET(SlotEntry, value), slot_original(i));
        set_slot_flags(i, slot_flags(i) & (ENTRY_LOADED | ENTRY_TRANSIENT));
    }

    WG_FN void append_journal(const JournalEntry& entry) {
        if (journal_count >= context.sizes().journal_entries) {
            fault = Halt::Overflow;
            return;
        }
        memory.store_struct(context.layout().journal + journal_count * sizeof(JournalEntry), entry);
        ++journal_count;
    }
    WG_FN void undo_last() {
        --journal_count;
        const auto old =
            memory.template load_struct<JournalEntry>(context.layout().journal + journal_count * sizeof(JournalEntry));
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
};

}  // namespace warpgrid::evm
