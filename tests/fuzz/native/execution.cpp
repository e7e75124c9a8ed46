// libFuzzer target: the input is a program (and its call data); it runs in a small world, once decoded in blocks and
// once an instruction at a time. Both must have the same effects: blocks are an optimisation only.
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "worker/evm/native/base.hpp"
#include "worker/evm/native/session.hpp"

using namespace warpgrid;
using namespace warpgrid::evm;

namespace {

constexpr u64 MIB = 1ull << 20;
constexpr u64 GAS_LIMIT = 300'000;
constexpr u32 CONTRACTS = 3;
constexpr ArenaSizes SIZES = {1025 * 64, 4 * MIB, MIB, 1024, 4096, 16384, 16384, MIB, 64, 8 * MIB, 256};

Address address_of(u32 number) { return {{0, 0, 0, 0, number << 24 | 0x1000}}; }

// One contract's account, with some storage, in a world of its own.
void add_account(Base& base, const Address& address, u64 nonce, u64 balance, u32 code) {
    const u32 record = base.enter_account(0, address);
    AccountRecord& account = base.account(record);
    account.nonce = nonce;
    account.balance = make_u256(balance);
    account.code = code;
    account.flags = ACCOUNT_EXISTS | ACCOUNT_STORAGE_COMPLETE | ACCOUNT_HAS_STORAGE;
    for (u32 slot = 0; code && slot < 3; ++slot) {
        base.slot(base.enter_slot(record, make_u256(slot))).value = make_u256(slot + 1);
    }
}

struct Run {
    Result result;
    const u8* sections;

    const AccountEntry* accounts() const { return reinterpret_cast<const AccountEntry*>(sections); }
    const SlotEntry* slots() const { return reinterpret_cast<const SlotEntry*>(accounts() + result.accounts); }
    const u8* logs() const { return reinterpret_cast<const u8*>(slots() + result.slots); }
    const u8* returned() const { return logs() + result.log_bytes; }
    const CodeHeader& code(const AccountEntry& entry) const {
        return *reinterpret_cast<const CodeHeader*>(returned() + pad_chunk(result.return_bytes) + entry.output_code);
    }
};

bool changed(const AccountEntry& entry) { return entry.flags & (ENTRY_WRITTEN | ENTRY_CREATED); }
bool changed(const SlotEntry& entry) { return entry.flags & ENTRY_WRITTEN && !(entry.flags & ENTRY_TRANSIENT); }

bool same_code(const Run& one, const AccountEntry& entry, const Run& other, const AccountEntry& entry_of_other) {
    if (!(entry.code & CODE_PRIVATE && entry.flags & ENTRY_NEW_CODE)) return entry.code == entry_of_other.code;
    return std::memcmp(one.code(entry).hash, other.code(entry_of_other).hash, 32) == 0;
}

// Every change of `one` is one of `other`.
bool changes_within(const Run& one, const Run& other) {
    for (u32 i = 0; i < one.result.accounts; ++i) {
        const AccountEntry& entry = one.accounts()[i];
        if (!changed(entry)) continue;
        bool found = false;
        for (u32 k = 0; k < other.result.accounts && !found; ++k) {
            const AccountEntry& candidate = other.accounts()[k];
            found = changed(candidate) && candidate.address == entry.address && candidate.nonce == entry.nonce &&
                    candidate.balance == entry.balance && same_code(one, entry, other, candidate);
        }
        if (!found) return false;
    }
    for (u32 i = 0; i < one.result.slots; ++i) {
        const SlotEntry& entry = one.slots()[i];
        if (!changed(entry)) continue;
        bool found = false;
        for (u32 k = 0; k < other.result.slots && !found; ++k) {
            const SlotEntry& candidate = other.slots()[k];
            found = changed(candidate) && candidate.key == entry.key && candidate.value == entry.value &&
                    other.accounts()[candidate.account].address == one.accounts()[entry.account].address;
        }
        if (!found) return false;
    }
    return true;
}

bool same_effects(const Run& one, const Run& other) {
    const Result &a = one.result, &b = other.result;
    return a.status == b.status && a.gas_used == b.gas_used && a.gas_refunded == b.gas_refunded &&
           a.coinbase_fee == b.coinbase_fee && a.logs == b.logs && a.log_bytes == b.log_bytes &&
           a.return_bytes == b.return_bytes && std::memcmp(one.logs(), other.logs(), a.log_bytes) == 0 &&
           std::memcmp(one.returned(), other.returned(), a.return_bytes) == 0 && changes_within(one, other) &&
           changes_within(other, one);
}

struct Bench {
    Bench() : session(SIZES, 1, 64 * MIB, 1) {}
    Session session;

    Run run(Granularity granularity, Fork fork, const u8* data, u64 size) {
        Base base(granularity);
        const u64 part = size / CONTRACTS;
        for (u32 i = 0; i < CONTRACTS; ++i) {
            const u64 offsets[2] = {i * part, i + 1 == CONTRACTS ? size : (i + 1) * part};
            add_account(base, address_of(i), 1, 1000, base.add_codes(1, data, offsets));
        }
        const Address sender = address_of(77);
        add_account(base, sender, 0, 1ull << 60, CODE_EMPTY);
        BlockEnvironment block = {};
        block.base_fee = make_u256(7);
        block.chain_id = 1;
        block.number = 0;  // no ancestors, whose hashes would have to be asked for
        block.timestamp = 1000;
        block.gas_limit = block.gas_available = 30'000'000;
        block.fork = static_cast<u32>(fork);
        const u8 zero = 0;
        const u64 none = 0, limit = GAS_LIMIT, data_offsets[2] = {0, size < 100 ? size : 100}, empty[2] = {0, 0};
        const u32 first = 0;
        const u256 price = make_u256(10), nothing = {};
        const Address target = address_of(0);
        Transactions batch = {};
        batch.count = 1;
        batch.type = batch.is_creation = batch.kind = &zero;
        batch.chain_id = batch.nonce = &none;
        batch.gas_limit = &limit;
        batch.max_fee_per_gas = batch.max_priority_fee_per_gas = &price;
        batch.value = batch.max_fee_per_blob_gas = &nothing;
        batch.to = &target;
        batch.sender = &sender;
        batch.data = data;
        batch.data_offsets = data_offsets;
        batch.access_offsets = batch.blob_hash_offsets = batch.authorization_offsets = empty;
        batch.access_key_offsets = &none;
        batch.world = batch.block = &first;
        batch.blocks = &block;
        const World world = base.world_view(1);
        Worker& worker = *session.workers[0];
        Machine<HostContext> m;
        m.state.context = {&world, &batch, &worker.sizes, &worker.layout};
        m.block = &block;
        m.granularity = granularity;
        Registers<1> r;
        Run run = {};
        const Rejection rejection = open_machine(m, r, 0, {worker.lanes.base()}, worker.region.base());
        if (rejection == Rejection::None && m.state.fault == Halt::None) {
            do {
                while (r.halt == Halt::None) step(m, r);
            } while (leave_frame(m, r));
        }
        const Outputs outputs = {&run.result, session.output.base(), &session.used, session.output.bytes()};
        write_result(m, r, rejection, outputs);
        run.sections = session.output.base() + run.result.output;
        return run;
    }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    static Bench bench;
    if (size < 2) return 0;
    bench.session.used = 0;
    const Fork fork = static_cast<Fork>(data[0] % 3);
    const Run blocks = bench.run(Granularity::Block, fork, data + 1, size - 1);
    const Run steps = bench.run(Granularity::Instruction, fork, data + 1, size - 1);
    // The arenas hold other codes in the two runs, so either may be the one that does not fit.
    if (blocks.result.status == Status::Overflow || steps.result.status == Status::Overflow) return 0;
    if (!same_effects(blocks, steps)) abort();
    return 0;
}
