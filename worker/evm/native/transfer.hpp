// A message to an account without code: validated, paid for and written out without a frame or a
// byte of private memory.
//
// Its outcome is to the byte the one of the interpreter, whose rules it uses; the two accounts stay in registers.
#pragma once

#include "worker/evm/native/results.hpp"

namespace warpgrid::evm {

// What validation needs of a machine (transaction.hpp), with the sender's entry for its only state.
template <class Context>
struct TransferMachine {
    struct Sender {
        AccountEntry entry;
        WG_FN u64 nonce(u32) const { return entry.nonce; }
        WG_FN const u256& balance(u32) const { return entry.balance; }
        WG_FN u32 code(u32) const { return entry.code; }
    };
    Context context;
    const BlockEnvironment* block;
    u64 index;
    Sender state;

    WG_FN decltype(auto) world() const { return context.world(); }
    WG_FN decltype(auto) batch() const { return context.batch(); }
    WG_FN Fork fork() const { return static_cast<Fork>(block->fork); }
    WG_FN const Code& code_of(u32 number) const { return world().codes[number]; }
};

// May this row run as a transfer? `target` is the record of its receiver, or NONE.
WG_FN bool is_transfer(const World& world, const Transactions& b, u64 i, u32 target) {
    if (b.is_creation[i] || b.type[i] > TYPE_FEE_MARKET || b.access_offsets[i] != b.access_offsets[i + 1]) return false;
    if (static_cast<MessageKind>(b.kind[i]) != MessageKind::Transaction || b.sender[i] == b.to[i]) return false;
    const Fork fork = static_cast<Fork>(b.blocks[b.block[i]].fork);
    if (precompile_of(b.to[i], fork) != Precompile::None) return false;
    return target == NONE ? world.accounts_complete : world.accounts[target].code == CODE_EMPTY;
}

WG_FN void set_balance(AccountEntry& entry, const u256& value) {
    entry.balance = value;
    entry.flags |= ENTRY_WRITTEN;
    const bool empty = entry.nonce == 0 && entry.code == CODE_EMPTY && is_zero(value);
    entry.flags = empty ? entry.flags & ~ENTRY_EXISTS : entry.flags | ENTRY_EXISTS;
}

// Runs row m.index, of which `is_transfer` holds.
template <class M>
WG_FN void run_transfer(M& m, const Outputs& outputs) {
    const Transactions& b = m.batch();
    const u64 i = m.index, limit = b.gas_limit[i];
    const u32 world_number = b.world[i];
    Result result = {};
    AccountEntry& sender = m.state.entry;
    sender = fresh_account(b.sender[i], *m.block);
    AccountEntry target = fresh_account(b.to[i], *m.block);
    const IntrinsicGas intrinsic = intrinsic_gas(m);
    Fees fees = {};
    RequestKind missing = read_account(m.world(), world_number, sender);
    result.request.address = sender.address;
    if (missing == RequestKind::None) {
        result.rejection = validate(m, 0, intrinsic, fees);
        missing =
            result.rejection == Rejection::None ? read_account(m.world(), world_number, target) : RequestKind::None;
        result.request.address = target.address;
    }
    if (missing != RequestKind::None) {
        result.request.kind = missing;
        result.status = Status::Parked;
        result.halt = Halt::Park;
    } else {
        result.request.address = {};
        result.status = result.rejection == Rejection::None ? Status::Success : Status::Rejected;
    }
    if (result.status == Status::Success) {
        bool overflow = false;
        const u64 used = intrinsic.gas < intrinsic.floor ? intrinsic.floor : intrinsic.gas;
        const u256 value = b.value[i];
        ++sender.nonce;
        sender.flags |= ENTRY_WARM;
        set_balance(sender,
                    sender.balance - fees.charged - value + multiply_checked(fees.gas_price, limit - used, overflow));
        target.flags |= ENTRY_WARM | ENTRY_ASKED;
        if (!is_zero(value)) set_balance(target, target.balance + value);
        result.halt = Halt::Stop;
        result.gas_used = used;
        result.gas_price = fees.gas_price;
        result.coinbase_fee = multiply_checked(fees.gas_price - m.block->base_fee, used, overflow);
        result.accounts = 2;
    }
    const u64 bytes = result.accounts * sizeof(AccountEntry);
    result.output = fetch_add(outputs.used, bytes);
    if (result.output + bytes > outputs.capacity) {
        result.status = Status::Overflow;
    } else if (result.status == Status::Success) {
        store_chunks(outputs.arena + result.output, sender);
        store_chunks(outputs.arena + result.output + sizeof(AccountEntry), target);
    }
    store_chunks(reinterpret_cast<u8*>(&outputs.results[i]), result);
}

}  // namespace warpgrid::evm
