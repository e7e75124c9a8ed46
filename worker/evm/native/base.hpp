// The shared base state as the host owns it: growing tables, and what a block in serial mode changes in them.
// Host code only. Kernels and instruction cores see it as a `World` of plain pointers.
#pragma once

#include <cstring>
#include <unordered_map>
#include <vector>

#include "worker/evm/native/reservation.hpp"
#include "worker/evm/native/results.hpp"

namespace warpgrid::evm {

class Base {
    template <class T>
    using Table = std::vector<T, LargePageAllocator<T>>;

   public:
    explicit Base(Granularity granularity) : granularity_(granularity) {
        rebuild_accounts(64);
        rebuild_slots(64);
        const u64 offsets[2] = {0, 0};
        add_codes(1, nullptr, offsets);
    }

    // ---- filling ----

    // Number of the first of `count` codes: code i is bytes[offsets[i]..offsets[i+1]). Decoded here, once.
    u32 add_codes(u64 count, const u8* bytes, const u64* offsets) {
        const u32 first = static_cast<u32>(codes_.size());
        for (u64 i = 0; i < count; ++i) add_code(bytes + offsets[i], static_cast<u32>(offsets[i + 1] - offsets[i]));
        return first;
    }

    // The record of an account, made if need be (then it does not exist yet).
    u32 enter_account(u32 world, const Address& address) {
        const World view = world_view(1);
        const u32 found = find_account(view, world, address);
        if (found != NONE) return found;
        AccountRecord record = {};
        record.address = address;
        record.world = world;
        accounts_.push_back(record);
        const u32 number = static_cast<u32>(accounts_.size());
        if (number * 2ull > account_index_.size()) {
            rebuild_accounts(account_index_.size() * 2);
        } else {
            insert(account_index_, hash_account(world, address), number);
        }
        return number - 1;
    }

    u32 enter_slot(u32 account, const u256& key) {
        const World view = world_view(1);
        const u32 found = find_slot(view, account, key);
        if (found != NONE) return found;
        SlotRecord record = {};
        record.key = key;
        record.account = account;
        slots_.push_back(record);
        const u32 number = static_cast<u32>(slots_.size());
        if (number * 2ull > slot_index_.size()) {
            rebuild_slots(slot_index_.size() * 2);
        } else {
            insert(slot_index_, hash_slot(account, key), number);
        }
        return number - 1;
    }

    AccountRecord& account(u32 number) { return accounts_[number]; }
    SlotRecord& slot(u32 number) { return slots_[number]; }
    const Code& code(u32 number) const { return codes_[number]; }
    const u8* code_bytes(u32 number) const { return code_blob_.data() + codes_[number].bytes; }
    std::vector<u256>& block_hashes() { return block_hashes_; }

    void add_answer(const u256& key, const u8* output, u32 size, u32 status) {
        if (answer_count_ * 2 >= answers_.size()) grow_answers();
        insert_answer({key, answer_blob_.size(), size, status});
        ++answer_count_;
        answer_blob_.insert(answer_blob_.end(), output, output + size);
    }

    // ---- serial mode: the outcome of a transaction becomes the base of the next ----

    void commit(const Result& result, const u8* sections, u32 world) {
        const auto* accounts = reinterpret_cast<const AccountEntry*>(sections);
        const auto* slots = reinterpret_cast<const SlotEntry*>(sections + result.accounts * sizeof(AccountEntry));
        const u8* codes = reinterpret_cast<const u8*>(slots + result.slots) + result.log_bytes +
                          pad_chunk(result.return_bytes);
        std::vector<u32> records(result.accounts, NONE);
        for (u32 i = 0; i < result.accounts; ++i) {
            if (accounts[i].flags & (ENTRY_WRITTEN | ENTRY_CREATED))
                records[i] = commit_account(accounts[i], world, codes);
        }
        for (u32 i = 0; i < result.slots; ++i) {
            const AccountEntry& owner = accounts[slots[i].account];
            if (slots[i].flags & ENTRY_TRANSIENT || !(slots[i].flags & ENTRY_WRITTEN)) continue;
            if (owner.flags & ENTRY_DESTROYED) continue;
            u32& record = records[slots[i].account];
            if (record == NONE) record = enter_account(world, owner.address);
            commit_slot(record, slots[i]);
        }
    }

    // Commits row `row` of a block, pays the coinbase and takes the block's gas off. False where nothing may be
    // committed yet: the row needs the host, or a larger class of arenas.
    bool commit_row(const Result& result, const u8* arena, const Transactions& batch, u64 row,
                    BlockEnvironment& block) {
        if (result.status == Status::Parked || result.status == Status::Overflow) return false;
        if (result.status == Status::Rejected) return true;
        const u8* sections = arena + result.output;
        commit(result, sections, batch.world[row]);
        if (batch.kind[row] == static_cast<u8>(MessageKind::System)) return true;
        pay_coinbase(result, sections, batch.world[row], block);
        block.gas_available -= result.gas_used;
        if (batch.type[row] == TYPE_BLOB) {
            block.blob_gas_available -=
                GAS_PER_BLOB * (batch.blob_hash_offsets[row + 1] - batch.blob_hash_offsets[row]);
        }
        return true;
    }

    // Fees go to the coinbase after everything else; if this transaction destroyed it, they go with it.
    void pay_coinbase(const Result& result, const u8* sections, u32 world, const BlockEnvironment& block) {
        const auto* accounts = reinterpret_cast<const AccountEntry*>(sections);
        for (u32 i = 0; i < result.accounts; ++i) {
            if (accounts[i].address == block.coinbase && accounts[i].flags & ENTRY_DESTROYED) return;
        }
        credit(world, block.coinbase, result.coinbase_fee);
    }

    // Adds to a balance. An account that is empty afterwards is gone (EIP-161).
    void credit(u32 world, const Address& address, const u256& amount) {
        const u32 record = enter_account(world, address);
        save_account(record);
        AccountRecord& account = accounts_[record];
        account.balance = account.balance + amount;
        const bool empty = is_zero(account.balance) && account.nonce == 0 && account.code == CODE_EMPTY;
        account.flags = empty ? account.flags & ~ACCOUNT_EXISTS : account.flags | ACCOUNT_EXISTS;
    }

    struct Saved {
        u32 record;
        AccountRecord account;
    };
    struct SavedSlot {
        u32 record;
        u256 value;
    };
    // What was there before the first commit, once for each record changed since `forget_changes`.
    const std::vector<Saved>& changed_accounts() const { return changed_accounts_; }
    const std::vector<SavedSlot>& changed_slots() const { return changed_slots_; }

    void forget_changes() {
        for (const Saved& saved : changed_accounts_)
            accounts_[saved.record].flags &= ~(ACCOUNT_DIRTY | ACCOUNT_CLEARED);
        for (const SavedSlot& saved : changed_slots_) slots_[saved.record].flags &= ~SLOT_DIRTY;
        changed_accounts_.clear();
        changed_slots_.clear();
    }

    // Goes back to what was there before the first commit since `forget_changes`.
    void undo_changes() {
        for (const Saved& saved : changed_accounts_) accounts_[saved.record] = saved.account;
        for (const SavedSlot& saved : changed_slots_) {
            slots_[saved.record].value = saved.value;
            slots_[saved.record].flags &= ~SLOT_DIRTY;
        }
        changed_accounts_.clear();
        changed_slots_.clear();
    }

    // Forgets accounts and slots; codes and answers are true of every state.
    void clear_state() {
        changed_accounts_.clear();
        changed_slots_.clear();
        accounts_.clear();
        slots_.clear();
        rebuild_accounts(64);
        rebuild_slots(64);
    }

    World world_view(u32 accounts_complete) {
        World world;
        world.accounts = accounts_.data();
        world.account_index = account_index_.data();
        world.slots = slots_.data();
        world.slot_index = slot_index_.data();
        world.codes = codes_.data();
        world.code_blob = code_blob_.data();
        world.block_hashes = block_hashes_.data();
        world.answers = answers_.data();
        world.answer_blob = answer_blob_.data();
        world.account_index_mask = account_index_.size() - 1;
        world.slot_index_mask = slot_index_.size() - 1;
        world.account_count = static_cast<u32>(accounts_.size());
        world.slot_count = static_cast<u32>(slots_.size());
        world.answer_count = static_cast<u32>(answers_.size());
        world.accounts_complete = accounts_complete;
        return world;
    }
    u64 code_count() const { return codes_.size(); }
    u64 code_blob_bytes() const { return code_blob_.size(); }
    u64 answer_blob_bytes() const { return answer_blob_.size(); }

   private:
    void insert_answer(const PrecompileAnswer& answer) {
        const u64 mask = answers_.size() - 1;
        u64 i = answer.key.w[0];
        while (answers_[i & mask].status != ANSWER_FREE) ++i;
        answers_[i & mask] = answer;
    }
    void grow_answers() {
        std::vector<PrecompileAnswer> before(answers_.empty() ? 64 : answers_.size() * 2, {{}, 0, 0, ANSWER_FREE});
        before.swap(answers_);
        for (const PrecompileAnswer& answer : before) {
            if (answer.status != ANSWER_FREE) insert_answer(answer);
        }
    }
    static void insert(Table<IndexPlace>& index, u64 hash, u32 number) {
        const u64 mask = index.size() - 1;
        u64 i = hash;
        while (index[i & mask]) ++i;
        index[i & mask] = make_place(hash, number);
    }
    void rebuild_accounts(u64 size) {
        account_index_.assign(size, 0);
        for (u32 i = 0; i < accounts_.size(); ++i) {
            insert(account_index_, hash_account(accounts_[i].world, accounts_[i].address), i + 1);
        }
    }
    void rebuild_slots(u64 size) {
        slot_index_.assign(size, 0);
        for (u32 i = 0; i < slots_.size(); ++i) insert(slot_index_, hash_slot(slots_[i].account, slots_[i].key), i + 1);
    }

    u64 append(u64 bytes) {  // offset of fresh bytes in the blob, aligned to 16
        const u64 at = (code_blob_.size() + 15) & ~15ull;
        code_blob_.resize(at + bytes);
        return at;
    }

    u32 add_code(const u8* bytes, u32 size) {
        Code code = {};
        keccak256(code.hash, bytes, size);
        const u256 key = load_big_endian(code.hash);
        const auto known = code_numbers_.find(key.w[0]);
        if (known != code_numbers_.end() && std::memcmp(codes_[known->second].hash, code.hash, 32) == 0) {
            // the caller counts on consecutive numbers: a descriptor more, the same bytes
            codes_.push_back(codes_[known->second]);
            return static_cast<u32>(codes_.size() - 1);
        }
        const CodeSizes sizes = decode_code(bytes, size, granularity_, {});
        code.size = size;
        code.flags = CODE_DECODED | (is_delegation(bytes, size) ? CODE_DELEGATION : 0u);
        code.record_count = sizes.records;
        code.bytes = append(size);
        code.constants = append(sizes.constants * 32ull);
        code.records = append(sizes.records * sizeof(Instruction));
        code.jumps = append(size * sizeof(u32));
        u8* blob = code_blob_.data();
        if (size) std::memcpy(blob + code.bytes, bytes, size);
        decode_code(blob + code.bytes, size, granularity_,
                    {reinterpret_cast<Instruction*>(blob + code.records), reinterpret_cast<u32*>(blob + code.jumps),
                     reinterpret_cast<u256*>(blob + code.constants)});
        codes_.push_back(code);
        code_numbers_.emplace(key.w[0], static_cast<u32>(codes_.size() - 1));
        return static_cast<u32>(codes_.size() - 1);
    }

    void save_account(u32 record) {
        if (accounts_[record].flags & ACCOUNT_DIRTY) return;
        changed_accounts_.push_back({record, accounts_[record]});
        accounts_[record].flags |= ACCOUNT_DIRTY;
    }

    u32 commit_account(const AccountEntry& entry, u32 world, const u8* codes) {
        const u32 record = enter_account(world, entry.address);
        save_account(record);
        u32 code = entry.code;
        if (code & CODE_PRIVATE) {
            const auto& header = *reinterpret_cast<const CodeHeader*>(codes + entry.output_code);
            code = add_code(codes + entry.output_code + sizeof(CodeHeader), static_cast<u32>(header.bytes));
        }
        AccountRecord& account = accounts_[record];
        if (entry.flags & ENTRY_CREATED) account.flags |= ACCOUNT_STORAGE_COMPLETE;
        if (entry.flags & ENTRY_DESTROYED || !(entry.flags & ENTRY_EXISTS)) {
            account.nonce = 0;
            account.balance = {};
            account.code = CODE_EMPTY;
            if (entry.flags & ENTRY_DESTROYED) account.flags |= ACCOUNT_CLEARED;
            account.flags &= ~(ACCOUNT_EXISTS | ACCOUNT_HAS_STORAGE);
        } else {
            account.nonce = entry.nonce;
            account.balance = entry.balance;
            account.code = code;
            account.flags |= ACCOUNT_EXISTS;
        }
        return record;
    }

    void commit_slot(u32 account, const SlotEntry& entry) {
        const u32 record = enter_slot(account, entry.key);
        SlotRecord& slot = slots_[record];
        if (!(slot.flags & SLOT_DIRTY)) {
            changed_slots_.push_back({record, entry.base == NONE ? entry.original : slot.value});
            slot.flags |= SLOT_DIRTY;
        }
        slot.value = entry.value;
        save_account(account);
        if (!is_zero(entry.value)) accounts_[account].flags |= ACCOUNT_HAS_STORAGE;
    }

    Granularity granularity_;
    Table<AccountRecord> accounts_;
    Table<IndexPlace> account_index_;
    Table<SlotRecord> slots_;
    Table<IndexPlace> slot_index_;
    std::vector<Code> codes_;
    GrowingBytes code_blob_;  // stays where it is: a transaction that runs one code may bring another
    std::unordered_map<u64, u32> code_numbers_;
    std::vector<u256> block_hashes_;
    std::vector<PrecompileAnswer> answers_;  // as find_answer reads it
    u64 answer_count_ = 0;
    std::vector<u8> answer_blob_;
    std::vector<Saved> changed_accounts_;
    std::vector<SavedSlot> changed_slots_;
};

}  // namespace warpgrid::evm
