// The structures that travel between Python, the host library and the kernels. Python declares the same layouts
// (worker/evm/layouts.py) and compares sizes and offsets when it loads the library.
#pragma once

#include "core/native/crypto/precompiles.hpp"
#include "core/native/u256.hpp"

namespace warpgrid::evm {

constexpr u32 ADDRESS_BYTES = 20;
constexpr u32 NONE = 0xffffffffu;

struct Address {
    u32 w[5];  // the 20 bytes in order, read as little-endian words
};
static_assert(sizeof(Address) == ADDRESS_BYTES);

WG_FN bool operator==(const Address& a, const Address& b) {
    return ((a.w[0] ^ b.w[0]) | (a.w[1] ^ b.w[1]) | (a.w[2] ^ b.w[2]) | (a.w[3] ^ b.w[3]) | (a.w[4] ^ b.w[4])) == 0;
}
WG_FN bool operator!=(const Address& a, const Address& b) { return !(a == b); }

WG_FN u256 to_word(const Address& a) {
    return {{swap_bytes(a.w[3] | static_cast<u64>(a.w[4]) << 32), swap_bytes(a.w[1] | static_cast<u64>(a.w[2]) << 32),
             swap_bytes(static_cast<u64>(a.w[0]) << 32), 0}};
}
WG_FN Address to_address(const u256& word) {  // the low 20 bytes
    const u64 low = swap_bytes(word.w[0]), middle = swap_bytes(word.w[1]), high = swap_bytes(word.w[2]);
    return {{static_cast<u32>(high >> 32), static_cast<u32>(middle), static_cast<u32>(middle >> 32),
             static_cast<u32>(low), static_cast<u32>(low >> 32)}};
}
WG_FN Address load_address(const u8* bytes) {
    Address a;
    for (u32 i = 0; i < ADDRESS_BYTES; ++i) reinterpret_cast<u8*>(&a)[i] = bytes[i];
    return a;
}

// ---- the shared base state ------------------------------------------------------------------------------------------
// Dense arrays of records, each with an open-addressing index of record numbers plus one (0: free) under the upper
// halves of their hashes, so that a search reads one record. A *world* is one
// state among several in the same tables: a batch of unrelated tests, or one world for a whole chain.

using IndexPlace = u64;

WG_FN constexpr IndexPlace make_place(u64 hash, u32 number) { return (hash & 0xffffffff00000000ull) | number; }

enum AccountFlag : u32 {
    ACCOUNT_EXISTS = 1,
    ACCOUNT_HAS_STORAGE = 2,       // its storage root is not that of the empty trie (EIP-7610)
    ACCOUNT_STORAGE_COMPLETE = 4,  // a slot that is not in the table is zero, not unknown
    ACCOUNT_DIRTY = 8,             // changed since the host last read it (serial mode)
    ACCOUNT_CLEARED = 16,          // destroyed in this block: its earlier storage is gone
};

struct AccountRecord {
    Address address;
    u32 world;
    u64 nonce;
    u256 balance;
    u32 code;   // number of a code; CODE_UNKNOWN if only its hash is known to the host
    u32 flags;  // AccountFlag
    u64 padding;
};
static_assert(sizeof(AccountRecord) == 80);

enum SlotFlag : u32 { SLOT_DIRTY = 1 };

struct SlotRecord {
    u256 key;
    u256 value;
    u32 account;  // record number
    u32 flags;    // SlotFlag
    u64 padding;
};
static_assert(sizeof(SlotRecord) == 80);

constexpr u32 CODE_EMPTY = 0;
constexpr u32 CODE_UNKNOWN = 0xfffffffeu;
constexpr u32 CODE_PRIVATE = 0x80000000u;  // set: made by this transaction, lies in its own region

enum CodeFlag : u32 {
    CODE_DELEGATION = 1,  // EIP-7702: 0xef0100 and an address
    CODE_DECODED = 2,
};

// Offsets are in bytes from the base of the blob that holds the code: the shared one or a transaction's region.
struct Code {
    u64 bytes;
    u64 records;    // Instruction[record_count]
    u64 jumps;      // u32[size]: the record of each JUMPDEST
    u64 constants;  // u256[]
    u32 size;
    u32 record_count;
    u32 flags;
    u32 padding;
    u8 hash[32];
};
static_assert(sizeof(Code) == 80);

// What the host worked out for a precompile call that a back end does not answer itself.
struct PrecompileAnswer {
    u256 key;     // keccak256(number as 4 little-endian bytes, input)
    u64 output;   // offset in the answers' blob
    u32 size;
    u32 status;   // PrecompileStatus
};
static_assert(sizeof(PrecompileAnswer) == 48);
constexpr u32 ANSWER_FREE = NONE;  // status of a place that holds none

struct World {
    AccountRecord* accounts;
    IndexPlace* account_index;
    SlotRecord* slots;
    IndexPlace* slot_index;
    const Code* codes;
    const u8* code_blob;
    const u256* block_hashes;
    const PrecompileAnswer* answers;
    const u8* answer_blob;
    u64 account_index_mask;
    u64 slot_index_mask;
    u32 account_count;
    u32 slot_count;
    u32 answer_count;       // places in `answers`, a power of two at least twice what it holds, or 0
    u32 accounts_complete;  // 1: an account that is not in the table does not exist; 0: it is unknown
};
static_assert(sizeof(World) == 104);

// ---- a block and its transactions -----------------------------------------------------------------------------------

struct BlockEnvironment {
    u256 base_fee;
    u256 prev_randao;
    u256 blob_base_fee;
    u64 chain_id;
    u64 number;
    u64 timestamp;
    u64 gas_limit;
    u64 gas_available;       // what is left of gas_limit
    u64 blob_gas_available;  // what is left of the block's blobs
    u64 block_hash_first;    // number of the block whose hash is block_hashes[block_hash_offset]
    u32 block_hash_offset;
    u32 block_hash_count;
    Address coinbase;
    u32 fork;                // Fork
    u64 padding;
};
static_assert(sizeof(BlockEnvironment) == 192);

enum class MessageKind : u8 {
    Transaction = 0,  // everything is checked and charged
    Simulation = 1,   // eth_call: the nonce, the sender's code and the limits on gas are not checked
    System = 2,       // EIP-4788 and the like: no intrinsic gas, no fee, no nonce
    CheckedCall = 3,  // eth_simulateV1 with validation: only the sender's code and EIP-7825 are not checked
};

// core.transaction.TransactionColumns, by pointer, and what the host adds: authorities, worlds, blocks, kinds.
struct Transactions {
    u64 count;
    const u8* type;
    const u64* chain_id;
    const u64* nonce;
    const u64* gas_limit;
    const u256* max_fee_per_gas;
    const u256* max_priority_fee_per_gas;
    const Address* to;
    const u8* is_creation;
    const u256* value;
    const u64* data_offsets;
    const Address* sender;
    const u64* access_offsets;
    const u256* max_fee_per_blob_gas;
    const u64* blob_hash_offsets;
    const u64* authorization_offsets;
    const u8* data;
    const Address* access_address;
    const u64* access_key_offsets;
    const u8* access_key;  // 32 big-endian bytes each
    const u8* blob_hash;
    const u256* authorization_chain_id;
    const Address* authorization_address;
    const u64* authorization_nonce;
    const Address* authority;         // recovered from the signature
    const u8* authority_valid;        // 0: the signature is not valid
    const u32* world;
    const u32* block;
    const u8* kind;                   // MessageKind
    const BlockEnvironment* blocks;
};

// ---- results --------------------------------------------------------------------------------------------------------

enum class Status : u32 {
    Pending = 0,
    Success = 1,
    Reverted = 2,
    Halted = 3,    // exceptional halt: all gas is gone
    Rejected = 4,  // may not be included; nothing happened
    Parked = 5,    // needs an answer from the host (the request is in the output); nothing happened
    Overflow = 6,  // did not fit into this class of arenas; nothing happened
};

// Why a message stopped. The order is mirrored by worker/evm/layouts.py.
enum class Halt : u32 {
    None = 0,
    Stop,
    Return,
    SelfDestruct,
    Revert,
    OutOfGas,
    InvalidOpcode,
    InvalidJump,
    StackUnderflow,
    StackOverflow,
    WriteProtection,
    CallDepth,
    InsufficientBalance,
    AddressCollision,
    CodeSize,
    InitCodeSize,
    InvalidCode,
    ReturnDataBounds,
    NonceOverflow,
    PrecompileFailed,
    Park,      // not an EVM outcome: the transaction needs the host
    Overflow,  // not an EVM outcome: the arenas are too small
    Late,      // not an EVM outcome: the transaction took longer than a kernel may
    PutOff,    // not an outcome: the record waits for `execute_put_off`
    Moved,     // not an outcome: the record that was read ahead is not the one that follows
};

enum class Rejection : u32 {
    None = 0,
    TypeNotSupported,
    ChainIdMismatch,
    NonceTooLow,
    NonceTooHigh,
    NonceOverflow,
    SenderNotEoa,
    InsufficientFunds,
    IntrinsicGas,
    FloorGas,
    InitCodeTooLarge,
    TransactionGasLimit,
    BlockGasLimit,
    FeeBelowBaseFee,
    PriorityFeeAboveMaxFee,
    CreationNotAllowed,
    BlobCount,
    BlobHashVersion,
    BlobFeeTooLow,
    BlobGasLimit,
    AuthorizationListEmpty,
};

enum class RequestKind : u32 { None = 0, Account, Slot, Code, BlockHash, Precompile };

struct Request {
    u256 key;         // slot, block number, or the key of the precompile's answer
    Address address;
    RequestKind kind;
    u32 precompile;
    u32 padding;
    u64 input_size;   // the input follows as the result's return data
    u64 padding2;
};
static_assert(sizeof(Request) == 80);

// One transaction's outcome. Its sections lie one after the other in the output arena from `output` on, each starting
// at a multiple of 16: AccountEntry[accounts], SlotEntry[slots], logs, return data, codes.
struct Result {
    u256 coinbase_fee;  // still to be added to the coinbase: fees commute, so they are no conflict
    u256 gas_price;     // what the sender paid for a unit of gas
    Request request;    // when Parked
    u64 gas_used;
    u64 gas_refunded;
    u64 output;
    u64 log_bytes;
    u64 return_bytes;
    u64 code_bytes;
    u32 accounts;
    u32 slots;
    u32 logs;
    Status status;
    Halt halt;
    Rejection rejection;
    Address created;
    u32 padding;
};
static_assert(sizeof(Result) == 240);

// A log in the output: this header, then the topics, then the data, padded to 16 bytes.
struct LogHeader {
    Address address;
    u32 topics;
    u64 data_bytes;
};
static_assert(sizeof(LogHeader) == 32);

}  // namespace warpgrid::evm
