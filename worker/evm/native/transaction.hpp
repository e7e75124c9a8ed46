// One transaction from its fields to its outcome: validation, fees, EIP-7702 authorizations, the first message,
// refunds. EELS: check_transaction, process_transaction. The message itself runs in between, in
// whatever loop the back end has.
#pragma once

#include "worker/evm/native/interpreter.hpp"

namespace warpgrid::evm {

constexpr u32 SENDER = 0;  // its account entry: the first that a transaction makes
constexpr u8 TYPE_ACCESS_LIST = 1, TYPE_FEE_MARKET = 2, TYPE_BLOB = 3, TYPE_SET_CODE = 4;

// ---- intrinsic gas --------------------------------------------------------------------------------------------------

struct IntrinsicGas {
    u64 gas;
    u64 floor;  // EIP-7623; 0 before Prague
};

WG_FN u64 calldata_tokens(const u8* data, u64 size) {
    u64 nonzero = 0, i = 0;
    for (; i + 8 <= size; i += 8) {
        const u64 word = load_unaligned64(data + i), low7 = 0x7f7f7f7f7f7f7f7full;
        nonzero += count_set_bits((((word & low7) + low7) | word) & ~low7);  // the top bit of each byte that is not 0
    }
    for (; i < size; ++i) nonzero += data[i] != 0;
    return size + 3 * nonzero;
}

template <class M>
WG_FN IntrinsicGas intrinsic_gas(const M& m) {
    const Transactions& b = m.batch();
    const u64 i = m.index, data = b.data_offsets[i], size = b.data_offsets[i + 1] - data;
    const u64 tokens = calldata_tokens(b.data + data, size);
    u64 gas = GAS_TRANSACTION + GAS_CALLDATA_TOKEN * tokens;
    if (b.is_creation[i]) gas += GAS_TRANSACTION_CREATE + GAS_INITCODE_WORD * words_of(size);
    const u64 first = b.access_offsets[i], last = b.access_offsets[i + 1];
    gas += GAS_ACCESS_LIST_ADDRESS * (last - first);
    gas += GAS_ACCESS_LIST_KEY * (b.access_key_offsets[last] - b.access_key_offsets[first]);
    gas += GAS_AUTHORIZATION * (b.authorization_offsets[i + 1] - b.authorization_offsets[i]);
    return {gas, m.fork() < Fork::Prague ? 0 : GAS_TRANSACTION + GAS_CALLDATA_TOKEN_FLOOR * tokens};
}

// ---- validation -----------------------------------------------------------------------------------------------------

struct Fees {
    u256 gas_price;
    u256 charged;   // for gas and blobs, in advance
    u64 blob_gas;
};

template <class M>
WG_FN MessageKind kind_of(const M& m) {
    return static_cast<MessageKind>(m.batch().kind[m.index]);
}

// A simulation that names no price for blobs gets them for nothing.
template <class M>
WG_FN bool pays_for_blobs(const M& m) {
    return kind_of(m) != MessageKind::Simulation || !is_zero(m.batch().max_fee_per_blob_gas[m.index]);
}

// What can be said without the state. The order of all checks is EELS's, so that the reason given is the same.
template <class M>
WG_FN Rejection check_fields(const M& m, const IntrinsicGas& intrinsic) {
    const Transactions& b = m.batch();
    const u64 i = m.index, gas_limit = b.gas_limit[i];
    const u8 type = b.type[i];
    const MessageKind kind = kind_of(m);
    if (type > (m.fork() < Fork::Prague ? TYPE_BLOB : TYPE_SET_CODE)) return Rejection::TypeNotSupported;
    if (b.chain_id[i] != m.block->chain_id && !(type == 0 && b.chain_id[i] == 0)) return Rejection::ChainIdMismatch;
    if (intrinsic.gas > gas_limit) return Rejection::IntrinsicGas;
    if (intrinsic.floor > gas_limit) return Rejection::FloorGas;
    if (b.nonce[i] == ~0ull && (kind != MessageKind::Simulation || b.is_creation[i])) return Rejection::NonceOverflow;
    const u64 data_bytes = b.data_offsets[i + 1] - b.data_offsets[i];
    if (b.is_creation[i] && data_bytes > INITCODE_SIZE_MAX) return Rejection::InitCodeTooLarge;
    if (kind == MessageKind::Simulation) return Rejection::None;
    const bool capped = kind == MessageKind::Transaction && m.fork() >= Fork::Osaka;
    if (capped && gas_limit > GAS_LIMIT_MAX) return Rejection::TransactionGasLimit;
    if (gas_limit > m.block->gas_available) return Rejection::BlockGasLimit;
    const u64 blobs = b.blob_hash_offsets[i + 1] - b.blob_hash_offsets[i];
    if (blobs * GAS_PER_BLOB > m.block->blob_gas_available) return Rejection::BlobGasLimit;
    return Rejection::None;
}

template <class M>
WG_FN Rejection check_blobs(const M& m) {
    const Transactions& b = m.batch();
    const u64 first = b.blob_hash_offsets[m.index], count = b.blob_hash_offsets[m.index + 1] - first;
    if (b.type[m.index] != TYPE_BLOB) return Rejection::None;
    if (count == 0 || (m.fork() >= Fork::Osaka && count > BLOBS_PER_TRANSACTION_MAX)) return Rejection::BlobCount;
    for (u64 i = 0; i < count; ++i) {
        if (b.blob_hash[32 * (first + i)] != 1) return Rejection::BlobHashVersion;
    }
    if (pays_for_blobs(m) && b.max_fee_per_blob_gas[m.index] < m.block->blob_base_fee) return Rejection::BlobFeeTooLow;
    return Rejection::None;
}

// What the sender pays for a unit of gas (EIP-1559).
template <class M>
WG_FN Rejection price_gas(const M& m, u256& price) {
    const u256 most = m.batch().max_fee_per_gas[m.index], tip = m.batch().max_priority_fee_per_gas[m.index];
    if (most < tip) return Rejection::PriorityFeeAboveMaxFee;
    if (most < m.block->base_fee) return Rejection::FeeBelowBaseFee;
    const u256 room = most - m.block->base_fee;
    price = m.block->base_fee + (tip < room ? tip : room);
    return Rejection::None;
}

// Nonce, code and means of the sender (account entry `sender`), and the fees to be charged.
template <class M>
WG_FN Rejection check_sender(const M& m, u32 sender, Fees& fees) {
    const Transactions& b = m.batch();
    const u64 i = m.index;
    if (kind_of(m) != MessageKind::Simulation) {
        const u64 nonce = m.state.nonce(sender);
        if (nonce > b.nonce[i]) return Rejection::NonceTooLow;
        if (nonce < b.nonce[i]) return Rejection::NonceTooHigh;
    }
    fees.blob_gas = b.type[i] == TYPE_BLOB && pays_for_blobs(m)
                        ? GAS_PER_BLOB * (b.blob_hash_offsets[i + 1] - b.blob_hash_offsets[i])
                        : 0;
    bool overflow = false;
    u64 carry = 0;
    u256 most = multiply_checked(b.max_fee_per_gas[i], b.gas_limit[i], overflow);
    if (fees.blob_gas) {
        most = add_with_carry(most, multiply_checked(b.max_fee_per_blob_gas[i], fees.blob_gas, overflow), carry);
        overflow |= carry != 0;
        carry = 0;
    }
    most = add_with_carry(most, b.value[i], carry);
    if (overflow || carry || m.state.balance(sender) < most) return Rejection::InsufficientFunds;
    if (kind_of(m) == MessageKind::Transaction) {
        const u32 code = m.state.code(sender);
        const bool delegated = m.fork() >= Fork::Prague && m.code_of(code).flags & CODE_DELEGATION;
        if (code != CODE_EMPTY && !delegated) return Rejection::SenderNotEoa;
    }
    fees.charged = multiply_checked(fees.gas_price, b.gas_limit[i], overflow) +
                   multiply_checked(m.block->blob_base_fee, fees.blob_gas, overflow);
    return Rejection::None;
}

// ---- before the first message ---------------------------------------------------------------------------------------

// EIP-2930: what the access list names is warm, and read only when it is used.
template <class M>
WG_NOINLINE void warm_access_list(M& m) {
    const Transactions& b = m.batch();
    for (u64 i = b.access_offsets[m.index]; i < b.access_offsets[m.index + 1]; ++i) {
        const u32 entry = m.state.enter_account(b.access_address[i]);
        if (entry == NONE) return;
        m.state.set_account_flags(entry, m.state.account_flags(entry) | ENTRY_WARM);
        for (u64 k = b.access_key_offsets[i]; k < b.access_key_offsets[i + 1]; ++k) {
            const u32 slot = m.state.enter_slot(entry, load_big_endian(b.access_key + 32 * k));
            if (slot == NONE) return;
            m.state.set_slot_flags(slot, m.state.slot_flags(slot) | ENTRY_WARM);
        }
    }
}

// Sets one account's delegation if its authorization holds.
template <class M>
WG_NOINLINE void authorize(M& m, u64 i) {
    const Transactions& b = m.batch();
    const u256& chain = b.authorization_chain_id[i];
    if (!is_zero(chain) && chain != make_u256(m.block->chain_id)) return;
    if (b.authorization_nonce[i] == ~0ull || !b.authority_valid[i]) return;
    const u32 entry = m.state.account(b.authority[i]);
    if (entry == NONE) return;
    m.state.warm_account(entry);
    const u32 old = m.state.code(entry);
    if (old != CODE_EMPTY && !(m.code_of(old).flags & CODE_DELEGATION)) return;
    if (m.state.nonce(entry) != b.authorization_nonce[i]) return;
    if (m.state.account_flags(entry) & ENTRY_EXISTS) m.refund += GAS_AUTHORIZATION - GAS_AUTHORIZATION_REFUND;
    const Address& target = b.authorization_address[i];
    u32 code = CODE_EMPTY;
    if (target != Address{}) {
        code = reserve_code(m, 23);
        if (code == NONE) return;
        u8* bytes = m.region.base + m.region.code(code).bytes;
        bytes[0] = 0xef;
        bytes[1] = 0x01;
        bytes[2] = 0x00;
        copy_memory(bytes + 3, reinterpret_cast<const u8*>(&target), ADDRESS_BYTES);
        seal_code(m, code);
    }
    m.state.set_code(entry, code);
    m.state.set_nonce(entry, m.state.nonce(entry) + 1);
}

// ---- the first message ----------------------------------------------------------------------------------------------

template <class M>
WG_FN Message first_message(const M& m, u32 sender, i64 gas) {
    Message message = {};
    message.value = m.batch().value[m.index];
    message.caller = m.state.address(sender);
    message.gas = gas;
    message.region_top = m.region.top;
    message.codes = m.region.code_count;
    return message;
}

template <class M>
WG_NOINLINE void begin_creation(M& m, typename M::Regs& r, u32 sender, u64 nonce, i64 gas) {
    const u64 data = m.batch().data_offsets[m.index], size = m.batch().data_offsets[m.index + 1] - data;
    Message message = first_message(m, sender, gas);
    message.self = m.state.account(address_of_creation(message.caller, nonce));
    if (message.self == NONE) return;
    m.state.warm_account(message.self);
    message.flags = FRAME_CREATE;
    const Checkpoint start = m.state.open_stretch();
    if (is_collision(m, message.self)) {
        m.frame = {};
        m.frame.start = start;
        m.frame.self = message.self;
        r.halt = Halt::AddressCollision;
        return;
    }
    message.code = reserve_code(m, size);
    if (message.code == NONE) return;
    copy_memory(m.region.base + m.region.code(message.code).bytes, m.batch().data + data, size);
    open_account(m, sender, message.self, message.value);
    begin_frame(m, r, message, start, m.layout().memory, 0);
}

template <class M>
WG_NOINLINE void begin_call(M& m, typename M::Regs& r, u32 sender, i64 gas) {
    const u64 data = m.batch().data_offsets[m.index];
    Message message = first_message(m, sender, gas);
    const Address& target = m.batch().to[m.index];
    u64 free_of_charge = 0;
    const Callee callee = resolve_callee(m, target, free_of_charge);
    if (callee.entry == NONE) return;
    message.self = callee.entry;
    message.code = callee.code;
    message.flags = FRAME_INPUT_OUTSIDE;
    message.input_offset = data;
    message.input_bytes = m.batch().data_offsets[m.index + 1] - data;
    const Checkpoint start = m.state.open_stretch();
    transfer(m, sender, message.self, message.value);
    const Precompile precompile =
        callee.delegated ? Precompile::None : precompile_of(target, m.fork());
    begin_frame(m, r, message, start, m.layout().memory, 0);
    if (precompile == Precompile::None) return;
    PrecompileCall request = {precompile, data, message.input_bytes, true, static_cast<u64>(gas)};
    r.halt = call_precompile(m, request);
    r.gas = static_cast<i64>(request.gas);
}

// ---- whole ----------------------------------------------------------------------------------------------------------

template <class M>
WG_FN Rejection validate(M& m, u32 sender, const IntrinsicGas& intrinsic, Fees& fees) {
    Rejection rejection = check_fields(m, intrinsic);
    if (rejection == Rejection::None) rejection = price_gas(m, fees.gas_price);
    if (rejection == Rejection::None) rejection = check_blobs(m);
    const u8 type = m.batch().type[m.index];
    if (rejection == Rejection::None && type >= TYPE_BLOB && m.batch().is_creation[m.index]) {
        rejection = Rejection::CreationNotAllowed;
    }
    if (rejection == Rejection::None && type == TYPE_SET_CODE &&
        m.batch().authorization_offsets[m.index] == m.batch().authorization_offsets[m.index + 1]) {
        rejection = Rejection::AuthorizationListEmpty;
    }
    if (rejection == Rejection::None) rejection = check_sender(m, sender, fees);
    return rejection;
}

// Brings the machine to its first record, or to the end: then `halt` is set. A rejected transaction leaves its reason.
template <class M>
WG_NOINLINE Rejection begin_transaction(M& m, typename M::Regs& r) {
    const Transactions& b = m.batch();
    const u64 i = m.index;
    r.halt = Halt::None;
    r.stack.bind(m.memory);
    const u32 sender = m.state.account(b.sender[i]);
    if (sender != SENDER) return Rejection::None;
    i64 gas = static_cast<i64>(b.gas_limit[i]);
    if (kind_of(m) != MessageKind::System) {
        const IntrinsicGas intrinsic = intrinsic_gas(m);
        Fees fees = {};
        const Rejection rejection = validate(m, sender, intrinsic, fees);
        if (rejection != Rejection::None) return rejection;
        gas -= static_cast<i64>(intrinsic.gas);
        m.floor_gas = intrinsic.floor;
        m.gas_price = fees.gas_price;
        m.state.set_nonce(sender, m.state.nonce(sender) + 1);
        m.state.set_balance(sender, m.state.balance(sender) - fees.charged);
    }
    m.state.set_account_flags(sender, m.state.account_flags(sender) | ENTRY_WARM);
    warm_access_list(m);
    for (u64 k = b.authorization_offsets[i]; k < b.authorization_offsets[i + 1]; ++k) authorize(m, k);
    if (m.state.fault != Halt::None) return Rejection::None;
    if (b.is_creation[i]) {
        begin_creation(m, r, sender, m.state.nonce(sender) - 1, gas);
    } else {
        begin_call(m, r, sender, gas);
    }
    return Rejection::None;
}

// Prepares a machine whose context, block and granularity are set for one transaction, and begins it.
template <class M>
WG_FN Rejection open_machine(M& m, typename M::Regs& r, u64 index, LaneMemory<M::LANES> memory, u8* region) {
    m.index = index;
    m.memory = memory;
    m.region = {region, m.sizes().region_bytes, 0, 0, static_cast<u32>(m.sizes().codes)};
    m.state.begin(memory, m.batch().world[index], *m.block);
    m.frame.flags = 0;
    m.depth = 0;
    m.logs = 0;
    m.log_bytes = 0;
    m.return_bytes = 0;
    m.refund = 0;
    m.gas_price = {};
    m.floor_gas = 0;
    return begin_transaction(m, r);
}

// Refunds, fees and the receipt's figures, after the first message has ended and was settled.
template <class M>
WG_FN void finish_transaction(M& m, const typename M::Regs& r, Result& result) {
    const Transactions& b = m.batch();
    const u64 limit = b.gas_limit[m.index];
    u64 used = limit - static_cast<u64>(r.gas);
    const u64 refund_max = used / 5, wanted = m.refund > 0 ? static_cast<u64>(m.refund) : 0;
    const u64 refund = r.halt == Halt::AddressCollision ? 0 : (wanted < refund_max ? wanted : refund_max);
    used -= refund;
    if (used < m.floor_gas) used = m.floor_gas;
    result.gas_used = used;
    result.gas_refunded = refund;
    result.gas_price = m.gas_price;
    result.halt = r.halt;
    result.status = is_success(r.halt) ? Status::Success : r.halt == Halt::Revert ? Status::Reverted : Status::Halted;
    if (m.batch().is_creation[m.index]) result.created = m.state.address(m.frame.self);
    if (kind_of(m) == MessageKind::System) return;
    bool overflow = false;
    m.state.start = {0, 0, 0};  // nothing undoes what follows
    m.state.set_balance(SENDER, m.state.balance(SENDER) + multiply_checked(m.gas_price, limit - used, overflow));
    result.coinbase_fee = multiply_checked(m.gas_price - m.block->base_fee, used, overflow);
}

}  // namespace warpgrid::evm
