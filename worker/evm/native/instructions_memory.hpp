// Memory, hashing, storage, logs and control flow. Yellow Paper H.2, 20s, 50s and a0s.
#pragma once

#include "worker/evm/native/instructions_environment.hpp"

namespace warpgrid::evm {

template <class M, class R>
WG_FN void op_MLOAD(M& m, R& r, Instruction) {
    const u256 offset = r.stack.top();
    if (ensure_memory(m, r, saturate_u64(offset), 32)) {
        r.stack.replace(0, m.memory.load_big_endian(r.memory_base + offset.w[0]));
    }
}

template <class M, class R>
WG_FN void op_MSTORE(M& m, R& r, Instruction) {
    const u256 offset = r.stack.top();
    if (!ensure_memory(m, r, saturate_u64(offset), 32)) return;
    m.memory.store_big_endian(r.memory_base + offset.w[0], r.stack.at(1));
    r.stack.drop(2);
}

template <class M, class R>
WG_FN void op_MSTORE8(M& m, R& r, Instruction) {
    const u256 offset = r.stack.top();
    if (!ensure_memory(m, r, saturate_u64(offset), 1)) return;
    m.memory.template store<u8>(r.memory_base + offset.w[0], static_cast<u8>(r.stack.at(1).w[0]));
    r.stack.drop(2);
}

template <class M, class R>
WG_FN void op_MSIZE(M&, R& r, Instruction) {
    r.stack.push(make_u256(r.memory_bytes));
}

template <class M, class R>
WG_NOINLINE void copy_memory_range(M& m, R& r) {
    const u256 destination = r.stack.top(), source = r.stack.at(1), count = r.stack.at(2);
    const u256 farther = destination < source ? source : destination;
    if (!prepare_copy(m, r, farther, count)) return;
    r.stack.drop(3);
    if (!is_zero(count)) m.memory.move(r.memory_base + destination.w[0], r.memory_base + source.w[0], count.w[0]);
}
WG_OUTLINE(op_MCOPY, copy_memory_range)

// ---- KECCAK256 ------------------------------------------------------------------------------------------------------

// XORs up to one block of a range of a lane's memory into the state: the range's last block is padded.
template <u32 LANES>
WG_FN void absorb_block(u64 (&state)[25], const LaneMemory<LANES>& memory, u64 offset, u64 size) {
    WG_UNROLL
    for (u32 i = 0; i < 17; ++i) {
        if (8 * i + 8 <= size) {
            state[i] ^= memory.load_little_endian(offset + 8 * i);
        } else if (8 * i <= size) {  // the last bytes and the padding that follows them
            u64 tail = 1ull << (8 * (size % 8));
            for (u32 b = 0; b < size % 8; ++b) {
                tail |= static_cast<u64>(*memory.at(offset + 8 * i + b)) << (8 * b);
            }
            state[i] ^= tail;
        }
    }
    if (size < KECCAK256_RATE_BYTES) state[16] ^= 0x8000000000000000ull;
}

// Digest, as a stack word, of a range of a lane's memory.
template <u32 LANES>
WG_NOINLINE u256 keccak_range(const LaneMemory<LANES>& memory, u64 offset, u64 size) {
    if constexpr (LANES == 1) {
        u8 digest[32];
        keccak256(digest, memory.base + offset, size);
        return load_big_endian(digest);
    }
    u64 state[25];
    WG_UNROLL
    for (u32 i = 0; i < 25; ++i) state[i] = 0;
    for (;;) {
        absorb_block(state, memory, offset, size);
        keccak_permute(state);
        if (size < KECCAK256_RATE_BYTES) break;
        offset += KECCAK256_RATE_BYTES;
        size -= KECCAK256_RATE_BYTES;
    }
    return from_big_endian_words(state[0], state[1], state[2], state[3]);
}

template <class M>
WG_FN u64 digest_at(const M& m, u32 place) {
    return m.layout().digests + place * sizeof(Digest);
}

// The same of two words, `offset` being a multiple of 16, unless it is remembered.
template <class M>
WG_NOINLINE u256 keccak_pair(M& m, u64 offset) {
    u64 input[8];
    WG_UNROLL
    for (u32 i = 0; i < 8; i += 2) {
        const Chunk chunk = m.memory.template load<Chunk>(offset + 8 * i);
        input[i] = chunk.low;
        input[i + 1] = chunk.high;
    }
    const u32 tag = static_cast<u32>(mix(input[2] ^ input[3] ^ input[6] ^ input[7]));
    const u64 tags = m.layout().digest_tags;
    u32 found = 0;  // bit i: digest i has the tag
    WG_UNROLL
    for (u32 i = 0; i < DIGESTS_KEPT; i += 4)
        found |= load_four_words(m.memory, tags + i * sizeof(u32)).matches(tag) << i;
    const u32 candidate = found ? count_trailing_zeros(found) : DIGESTS_KEPT;
    if (candidate < DIGESTS_KEPT && candidate < m.digests_made) {
        const u64 kept = digest_at(m, candidate);
        u64 difference = 0;
        WG_UNROLL
        for (u32 i = 0; i < 8; i += 2) {
            const Chunk chunk = m.memory.template load<Chunk>(kept + 8 * i);
            difference |= (chunk.low ^ input[i]) | (chunk.high ^ input[i + 1]);
        }
        if (difference == 0) return m.memory.load_word(kept + WG_OFFSET(Digest, output));
    }
    u256 output;
    if constexpr (WG_ON_DEVICE) {
        u64 state[25];
        WG_UNROLL
        for (u32 i = 0; i < 25; ++i) state[i] = i < 8 ? input[i < 8 ? i : 0] : 0;
        state[8] = 1;
        state[16] = 0x8000000000000000ull;
        keccak_permute(state);
        output = from_big_endian_words(state[0], state[1], state[2], state[3]);
    } else {
        u8 digest[32];
        keccak256(digest, reinterpret_cast<const u8*>(input), sizeof(input));
        output = load_big_endian(digest);
    }
    // In turn, so that the lanes of a warp remember and forget the same digests: one that must
    // compute keeps all waiting.
    const u32 place = m.digests_made++ % DIGESTS_KEPT;
    const u64 kept = digest_at(m, place);
    WG_UNROLL
    for (u32 i = 0; i < 8; i += 2) m.memory.template store<Chunk>(kept + 8 * i, {input[i], input[i + 1]});
    m.memory.store_word(kept + WG_OFFSET(Digest, output), output);
    m.memory.template store<u32>(tags + place * sizeof(u32), tag);
    return output;
}

// Does KECCAK256 hash two words that are in memory already?
template <class R>
WG_FN bool is_pair_in_memory(R& r) {
    const u64 start = saturate_u64(r.stack.top());
    const u256 size = r.stack.at(1);
    return size == make_u256(64) && start % CHUNK_BYTES == 0 && start <= r.memory_bytes && 64 <= r.memory_bytes - start;
}

template <class M, class R>
WG_FN void hash_pair(M& m, R& r) {
    if (r.charge(GAS_KECCAK_WORD * 2)) r.stack.replace(1, keccak_pair(m, r.memory_base + r.stack.top().w[0]));
}

template <class M, class R>
WG_FN void op_KECCAK256(M& m, R& r, Instruction) {
    if (is_pair_in_memory(r)) return hash_pair(m, r);
    const u256 offset = r.stack.top(), size = r.stack.at(1);
    if (saturate_u64(size) > MEMORY_BYTES_UNPAYABLE) {
        r.halt = Halt::OutOfGas;
        return;
    }
    if (!r.charge(GAS_KECCAK_WORD * words_of(size.w[0])) || !ensure_range(m, r, offset, size)) return;
    const u64 start = r.memory_base + (is_zero(size) ? 0 : offset.w[0]);
    r.stack.replace(1, keccak_range(m.memory, start, size.w[0]));
}

template <class M, class R>
WG_FN void op_EXP(M&, R& r, Instruction) {
    const u256 base = r.stack.top(), exponent = r.stack.at(1);
    if (r.charge(GAS_EXPONENT_BYTE * bytes_of_exponent(exponent))) r.stack.replace(1, power(base, exponent));
}

template <class M, class R>
WG_FN void op_CLZ(M& m, R& r, Instruction) {
    if (m.fork() < Fork::Osaka) {
        r.halt = Halt::InvalidOpcode;
        return;
    }
    r.stack.replace(0, make_u256(count_leading_zeros(r.stack.top())));
}

// ---- storage --------------------------------------------------------------------------------------------------------

// Operands and results travel in registers: SLOAD and SSTORE need no addressed copy of them.
struct StorageRead {
    u256 value;
    u64 gas;
    Halt halt;
};

template <class M>
WG_NOINLINE StorageRead read_storage(M& m, u256 key) {
    const u32 slot = m.state.slot(m.frame.self, key);
    if (slot == NONE) return {{}, 0, m.state.fault};
    const u64 gas = m.state.warm_slot(slot) ? GAS_COLD_SLOT : GAS_WARM;
    return {m.state.slot_value(slot), gas, Halt::None};
}

template <class M, class R>
WG_FN void op_SLOAD(M& m, R& r, Instruction) {
    const StorageRead read = read_storage(m, r.stack.top());
    if (read.halt != Halt::None) {
        r.halt = read.halt;
    } else if (r.charge(read.gas)) {
        r.stack.replace(0, read.value);
    }
}

struct StorageWritten {
    u64 gas;
    Halt halt;
};

// Writes a slot if `gas` pays for it.
template <class M>
WG_NOINLINE StorageWritten write_storage(M& m, u256 key, u256 value, u64 gas) {
    if (m.is_static()) return {0, Halt::WriteProtection};
    if (gas <= GAS_STIPEND) return {0, Halt::OutOfGas};
    const u32 slot = m.state.slot(m.frame.self, key);
    if (slot == NONE) return {0, m.state.fault};
    const u64 access = m.state.warm_slot(slot) ? GAS_COLD_SLOT : 0;
    const u256 current = m.state.slot_value(slot);
    const StorageCharge charge = storage_charge(m.state.slot_original(slot), current, value);
    if (access + charge.gas <= gas) {
        m.refund += charge.refund;
        if (current != value) m.state.set_slot(slot, value);
    }
    return {access + charge.gas, Halt::None};
}

template <class M, class R>
WG_FN void op_SSTORE(M& m, R& r, Instruction) {
    const StorageWritten written = write_storage(m, r.stack.top(), r.stack.at(1), static_cast<u64>(r.gas));
    if (written.halt != Halt::None) {
        r.halt = written.halt;
    } else if (r.charge(written.gas)) {
        r.stack.drop(2);
    }
}

template <class M, class R>
WG_NOINLINE void load_transient(M& m, R& r) {
    const u32 slot = m.state.transient_slot(m.frame.self, r.stack.top());
    if (slot == NONE) {
        r.halt = m.state.fault;
        return;
    }
    r.stack.replace(0, m.state.slot_value(slot));
}
WG_OUTLINE(op_TLOAD, load_transient)

template <class M, class R>
WG_NOINLINE void store_transient(M& m, R& r) {
    if (m.is_static()) {
        r.halt = Halt::WriteProtection;
        return;
    }
    const u32 slot = m.state.transient_slot(m.frame.self, r.stack.top());
    if (slot == NONE) {
        r.halt = m.state.fault;
        return;
    }
    m.state.set_slot(slot, r.stack.at(1));
    r.stack.drop(2);
}
WG_OUTLINE(op_TSTORE, store_transient)

// ---- logs -----------------------------------------------------------------------------------------------------------

template <class M, class R>
WG_NOINLINE void append_log(M& m, R& r, u32 topics) {
    const u256 offset = r.stack.top(), size = r.stack.at(1);
    if (m.is_static()) {
        r.halt = Halt::WriteProtection;
        return;
    }
    if (saturate_u64(size) > MEMORY_BYTES_UNPAYABLE) {
        r.halt = Halt::OutOfGas;
        return;
    }
    if (!r.charge(GAS_LOG_BYTE * size.w[0]) || !ensure_range(m, r, offset, size)) return;
    const u64 padded = (size.w[0] + 15) & ~15ull, bytes = sizeof(LogHeader) + 32 * topics + padded;
    if (m.log_bytes + bytes > m.sizes().log_bytes) {
        r.halt = Halt::Overflow;
        return;
    }
    u64 to = m.layout().logs + m.log_bytes;
    const Address& a = m.self;
    m.memory.template store<Chunk>(to,
                                   {a.w[0] | static_cast<u64>(a.w[1]) << 32, a.w[2] | static_cast<u64>(a.w[3]) << 32});
    m.memory.template store<Chunk>(to + 16, {a.w[4] | static_cast<u64>(topics) << 32, size.w[0]});
    to += sizeof(LogHeader);
    for (u32 i = 0; i < topics; ++i, to += 32) m.memory.store_big_endian(to, r.stack.at(2 + i));
    if (size.w[0]) m.memory.move(to, r.memory_base + offset.w[0], size.w[0]);
    m.memory.zero(to + size.w[0], padded - size.w[0]);
    m.log_bytes += bytes;
    ++m.logs;
    r.stack.drop(2 + topics);
}

template <class M, class R>
WG_FN void op_LOG(M& m, R& r, Instruction instruction) {
    with_addressed(m, r, [&](R& called) { append_log(m, called, instruction.head >> 8); });
}

// ---- control flow ---------------------------------------------------------------------------------------------------

template <class M, class R>
WG_FN void jump_to(M& m, R& r, const u256& destination) {
    const u32 record = saturate_u64(destination) < m.code().size ? m.code().jumps[destination.w[0]] : NO_JUMP;
    if (record == NO_JUMP) {
        r.halt = Halt::InvalidJump;
    } else {
        branch(m, r, true, record);
    }
}

template <class M, class R>
WG_FN void op_JUMP(M& m, R& r, Instruction) {
    const u256 destination = r.stack.top();
    r.stack.drop(1);
    jump_to(m, r, destination);
}

template <class M, class R>
WG_FN void op_JUMPI(M& m, R& r, Instruction) {
    const u256 destination = r.stack.top();
    const bool taken = !is_zero(r.stack.at(1));
    r.stack.drop(2);
    if (taken) jump_to(m, r, destination);
}

template <class M, class R> WG_FN void op_JUMPDEST(M&, R&, Instruction) {}

template <class M, class R>
WG_FN void op_PC(M&, R& r, Instruction instruction) {
    r.stack.push(make_u256(instruction.immediate));
}

template <class M, class R>
WG_FN void op_GAS(M&, R& r, Instruction) {
    r.stack.push(make_u256(static_cast<u64>(r.gas)));
}

template <class M, class R> WG_FN void op_STOP(M&, R& r, Instruction) { r.halt = Halt::Stop; }
template <class M, class R> WG_FN void op_INVALID(M&, R& r, Instruction) { r.halt = Halt::InvalidOpcode; }

// RETURN and REVERT: moves the output to where the caller finds it.
template <class M, class R>
WG_NOINLINE void finish_with_output(M& m, R& r, Halt halt) {
    const u256 offset = r.stack.top(), size = r.stack.at(1);
    if (!ensure_range(m, r, offset, size)) return;
    if (size.w[0] > m.sizes().return_bytes) {
        r.halt = Halt::Overflow;
        return;
    }
    if (size.w[0]) m.memory.move(m.layout().returned, r.memory_base + offset.w[0], size.w[0]);
    m.return_bytes = size.w[0];
    r.halt = halt;
}

template <class M, class R>
WG_FN void op_RETURN(M& m, R& r, Instruction) {
    with_addressed(m, r, [&](R& called) { finish_with_output(m, called, Halt::Return); });
}

template <class M, class R>
WG_FN void op_REVERT(M& m, R& r, Instruction) {
    with_addressed(m, r, [&](R& called) { finish_with_output(m, called, Halt::Revert); });
}

}  // namespace warpgrid::evm
