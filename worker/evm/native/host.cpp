// C entry points of libwarpgrid_evm: the engine on CPU cores.
#include <atomic>
#include <thread>

#include "worker/evm/native/base.hpp"
#include "worker/evm/native/session.hpp"

using namespace warpgrid;
using namespace warpgrid::evm;

namespace {

struct HostMachine : Machine<HostContext> {
    PrecompileMemo* memo;
};

void run_one(Worker& worker, const World& world, const Transactions& batch, const BlockEnvironment& block, u64 index,
             Granularity granularity, const Outputs& outputs, const Asker<1>& asker = {}) {
    HostMachine m;
    m.memo = &worker.memo;
    m.state.context = {&world, &batch, &worker.sizes, &worker.layout};
    m.state.asker = asker;
    m.block = &block;
    m.granularity = granularity;
    Registers<1> r;
    const Rejection rejection = open_machine(m, r, index, {worker.lanes.base()}, worker.region.base());
    if (rejection == Rejection::None && m.state.fault == Halt::None) {
        do {
            Registers<1> running = r;
            while (running.halt == Halt::None) step(m, running);
            r = running;
        } while (leave_frame(m, r));
    }
    write_result(m, r, rejection, outputs);
}

}  // namespace

WG_EXPORT Base* warpgrid_evm_base_create(u32 single_step) {
    return new Base(single_step ? Granularity::Instruction : Granularity::Block);
}
WG_EXPORT void warpgrid_evm_base_destroy(Base* base) { delete base; }

WG_EXPORT u32 warpgrid_evm_base_add_codes(Base* base, u64 count, const u8* bytes, const u64* offsets) {
    return base->add_codes(count, bytes, offsets);
}

// Enters or overwrites accounts; records[i] becomes the number of account i's record.
WG_EXPORT void warpgrid_evm_base_add_accounts(Base* base, u64 count, const u32* worlds, const Address* addresses,
                                              const u64* nonces, const u256* balances, const u32* codes,
                                              const u32* flags, u32* records) {
    for (u64 i = 0; i < count; ++i) {
        records[i] = base->enter_account(worlds[i], addresses[i]);
        AccountRecord& account = base->account(records[i]);
        account.nonce = nonces[i];
        account.balance = balances[i];
        account.code = codes[i];
        account.flags = flags[i] | (account.flags & (ACCOUNT_DIRTY | ACCOUNT_CLEARED));
    }
}

// One account, its balance as 32 little-endian bytes; its record's number.
WG_EXPORT u32 warpgrid_evm_base_put_account(Base* base, u32 world, const u8* address, u64 nonce, const u8* balance,
                                            u32 code, u32 flags) {
    const u32 record = base->enter_account(world, load_address(address));
    AccountRecord& account = base->account(record);
    account.nonce = nonce;
    std::memcpy(&account.balance, balance, 32);
    account.code = code;
    account.flags = flags | (account.flags & (ACCOUNT_DIRTY | ACCOUNT_CLEARED));
    return record;
}

// One slot, key and value as 32 little-endian bytes.
WG_EXPORT void warpgrid_evm_base_put_slot(Base* base, u32 account, const u8* key, const u8* value) {
    u256 aligned;
    std::memcpy(&aligned, key, 32);
    std::memcpy(&base->slot(base->enter_slot(account, aligned)).value, value, 32);
}

WG_EXPORT void warpgrid_evm_base_add_slots(Base* base, u64 count, const u32* accounts, const u256* keys,
                                           const u256* values) {
    for (u64 i = 0; i < count; ++i) base->slot(base->enter_slot(accounts[i], keys[i])).value = values[i];
}

WG_EXPORT u32 warpgrid_evm_base_add_block_hashes(Base* base, u64 count, const u256* hashes) {
    const u32 first = static_cast<u32>(base->block_hashes().size());
    base->block_hashes().insert(base->block_hashes().end(), hashes, hashes + count);
    return first;
}

WG_EXPORT void warpgrid_evm_base_add_answer(Base* base, const u256* key, const u8* output, u32 size, u32 status) {
    base->add_answer(*key, output, size, status);
}

// Adds to the balance of an account that was entered before (withdrawals).
WG_EXPORT void warpgrid_evm_base_credit(Base* base, u32 world, const Address* address, const u256* amount) {
    base->credit(world, *address, *amount);
}

WG_EXPORT void warpgrid_evm_base_view(Base* base, u32 accounts_complete, World* world, u64* sizes) {
    *world = base->world_view(accounts_complete);
    sizes[0] = base->code_count();
    sizes[1] = base->code_blob_bytes();
    sizes[2] = base->answer_blob_bytes();
    sizes[3] = base->block_hashes().size();
}

// `memo_entries`: how many answers of precompiles each thread remembers; a power of two, or 0.
WG_EXPORT Session* warpgrid_evm_session_create(const ArenaSizes* sizes, u32 threads, u64 output_bytes,
                                               u32 memo_entries) {
    auto* session = new Session(*sizes, threads, output_bytes, memo_entries);
    if (session->usable()) return session;
    delete session;
    return nullptr;
}
WG_EXPORT void warpgrid_evm_session_destroy(Session* session) { delete session; }
WG_EXPORT const u8* warpgrid_evm_session_output(Session* session) { return session->output.base(); }

// Forgets the outputs of earlier runs. With `release`, their memory goes back to the system.
WG_EXPORT void warpgrid_evm_session_clear(Session* session, u32 release) {
    session->used = 0;
    if (!release) return;
    session->output.forget();
    for (const auto& worker : session->workers) {
        worker->lanes.forget();
        worker->region.forget();
    }
}

// Instances mode: runs the transactions named by rows[0..count), each on the base alone, on all of
// the session's threads.
WG_EXPORT void warpgrid_evm_run_instances(Session* session, Base* base, u32 accounts_complete, u32 single_step,
                                          const Transactions* batch, const u32* rows, u64 count, Result* results) {
    const World world = base->world_view(accounts_complete);
    const Granularity granularity = single_step ? Granularity::Instruction : Granularity::Block;
    const Outputs outputs = {results, session->output.base(), &session->used, session->output.bytes()};
    std::atomic<u64> next{0};
    constexpr u64 ROWS_A_TURN = 16;
    auto work = [&](Worker* worker) {
        for (u64 start; (start = next.fetch_add(ROWS_A_TURN)) < count;) {
            for (u64 i = start; i < count && i < start + ROWS_A_TURN; ++i) {
                const u32 row = rows[i];
                run_one(*worker, world, *batch, batch->blocks[batch->block[row]], row, granularity, outputs);
            }
        }
    };
    std::vector<std::thread> threads;
    for (u64 i = 1; i < session->workers.size(); ++i) threads.emplace_back(work, session->workers[i].get());
    work(session->workers[0].get());
    for (std::thread& thread : threads) thread.join();
}

// Serial mode: runs rows `first`.. of a block in order, each on the state that the one before left, until the end or
// until one needs the host or a larger class of arenas; returns the row to go on with (`count` at the end). `block` is
// the running block, whose gas it takes off. Accounts and slots that the base lacks are asked for by `answer` (unless
// it is null), so that no transaction runs twice for them.
WG_EXPORT u64 warpgrid_evm_run_serial(Session* session, Base* base, u32 accounts_complete, const Transactions* batch,
                                      u64 first, BlockEnvironment* block, Result* results, Answer answer) {
    const Outputs outputs = {results, session->output.base(), &session->used, session->output.bytes()};
    for (u64 row = first; row < batch->count; ++row) {
        World world = base->world_view(accounts_complete);
        HostAnswers answers = {*base, world, answer};
        run_one(*session->workers[0], world, *batch, *block, row, Granularity::Block, outputs, answers.asker());
        if (!base->commit_row(results[row], session->output.base(), *batch, row, *block)) return row;
    }
    return batch->count;
}

// ---- what a block changed -------------------------------------------------------------------------------------------

WG_EXPORT void warpgrid_evm_base_change_counts(const Base* base, u64* accounts, u64* slots) {
    *accounts = base->changed_accounts().size();
    *slots = base->changed_slots().size();
}

// before[i], after[i]: the account records; code_hashes[i]: of the code after; the like for slots.
WG_EXPORT void warpgrid_evm_base_changes(Base* base, AccountRecord* before, AccountRecord* after, u8* code_hashes,
                                         u32* records, SlotRecord* slots, u256* slots_before) {
    for (const Base::Saved& saved : base->changed_accounts()) {
        *before++ = saved.account;
        *after++ = base->account(saved.record);
        std::memcpy(code_hashes, base->code(base->account(saved.record).code).hash, 32);
        code_hashes += 32;
        *records++ = saved.record;
    }
    for (const Base::SavedSlot& saved : base->changed_slots()) {
        *slots++ = base->slot(saved.record);
        *slots_before++ = saved.value;
    }
}

WG_EXPORT void warpgrid_evm_base_forget_changes(Base* base) { base->forget_changes(); }
WG_EXPORT void warpgrid_evm_base_undo_changes(Base* base) { base->undo_changes(); }
WG_EXPORT void warpgrid_evm_base_clear_state(Base* base) { base->clear_state(); }
WG_EXPORT void warpgrid_evm_base_clear_block_hashes(Base* base) { base->block_hashes().clear(); }
WG_EXPORT u32 warpgrid_evm_base_code_size(const Base* base, u32 code) { return base->code(code).size; }
WG_EXPORT const u8* warpgrid_evm_base_code(const Base* base, u32 code) { return base->code_bytes(code); }
WG_EXPORT void warpgrid_evm_base_code_hash(const Base* base, u32 code, u8* hash) {
    std::memcpy(hash, base->code(code).hash, 32);
}

// How arenas of these sizes are divided: the sections' offsets, then the bytes of a lane and of a region.
WG_EXPORT void warpgrid_evm_lay_out(const ArenaSizes* sizes, u64* layout) {
    const ArenaLayout sections = lay_out(*sizes);
    std::memcpy(layout, &sections, sizeof(sections));
    constexpr u64 COUNT = sizeof(ArenaLayout) / sizeof(u64);
    layout[COUNT] = (lane_bytes(*sizes) + 15) & ~15ull;
    layout[COUNT + 1] = (region_bytes(*sizes) + 15) & ~15ull;
}

// The sizes that the GPU's common class was built with.
WG_EXPORT void warpgrid_evm_common_arenas(ArenaSizes* sizes) { *sizes = common_arenas(); }

// Sizes of the shared structures, in the order of worker/evm/layouts.py.
WG_EXPORT void warpgrid_evm_layout(u64* sizes) {
    const u64 all[] = {sizeof(AccountRecord), sizeof(SlotRecord),   sizeof(Code),         sizeof(World),
                       sizeof(BlockEnvironment), sizeof(Transactions), sizeof(Result),       sizeof(Request),
                       sizeof(ArenaSizes),    sizeof(AccountEntry), sizeof(SlotEntry),    sizeof(LogHeader),
                       sizeof(CodeHeader),    WG_OFFSET(Result, status), WG_OFFSET(Result, gas_used),
                       WG_OFFSET(BlockEnvironment, coinbase), WG_OFFSET(AccountEntry, original_balance),
                       NEAR_WORDS * sizeof(u256)};
    std::memcpy(sizes, all, sizeof(all));
}
