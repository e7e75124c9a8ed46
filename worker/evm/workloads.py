"""Workloads for measuring the EVM: batches of independent transactions on one shared base, built as columns.

The contracts are worker/evm/contracts/*.sol, compiled by solc 0.8.37 with OpenZeppelin's ERC20; contracts.json holds
the runtime code. Every number is a function of the row, so runs repeat.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from core.columns import Array
from core.crypto import keccak256_batch
from core.execution import BlockContext
from core.fork import Fork
from core.transaction import TransactionColumns
from worker.evm.base_state import BaseState
from worker.evm.batch import Batch, block_environments
from worker.evm.layouts import AccountFlag

__all__ = ["WORKLOADS", "Workload"]

_RUNTIME = {
    name: bytes.fromhex(one["runtime"])
    for name, one in json.loads((Path(__file__).parent / "contracts" / "contracts.json").read_text())[
        "contracts"
    ].items()
}
_CONTEXT = BlockContext(
    fork=Fork.OSAKA,
    chain_id=1,
    number=1000,
    timestamp=1_700_000_000,
    gas_limit=1 << 62,
    coinbase=bytes.fromhex("c0" * 20),
    base_fee_per_gas=7,
    block_hashes=tuple(bytes(32) for _ in range(256)),
)
_COMPLETE = int(AccountFlag.EXISTS | AccountFlag.STORAGE_COMPLETE | AccountFlag.HAS_STORAGE)
_WEALTH = 10**20
_SENDERS, _RECEIVERS, _SPENDERS, _PAIRS = 1, 2, 3, 4

_TRANSFER, _APPROVE, _TRANSFER_FROM, _BALANCE_OF = 0xA9059CBB, 0x095EA7B3, 0x23B872DD, 0x70A08231


@dataclass(frozen=True, slots=True, eq=False)
class Workload:
    """A base and a batch; `operations` is how many units of what `unit` names one transaction does."""

    base: BaseState
    batch: Batch
    unit: str = "transaction"
    operations: int = 1


def _addresses(kind: int, count: int) -> Array:
    """u8[count, 20]: made-up addresses of a kind, all different."""
    numbers = np.arange(count, dtype="<u8") * np.uint64(0x9E3779B97F4A7C15) + np.uint64(kind << 56)
    raw = np.zeros((count, 20), "u1")
    raw[:, 0] = 0x10 + kind
    raw[:, 4:12] = numbers.view("u1").reshape(-1, 8)
    raw[:, 12:20] = (numbers ^ np.uint64(0xA5A5A5A5A5A5A5A5)).view("u1").reshape(-1, 8)
    return raw


def _word_of_address(addresses: Array) -> Array:
    return np.pad(addresses, ((0, 0), (12, 0)))


def _word_of_int(values: Array | int, count: int) -> Array:
    raw = np.zeros((count, 32), "u1")
    raw[:, 24:] = np.broadcast_to(np.asarray(values, ">u8"), (count,)).astype(">u8").view("u1").reshape(-1, 8)
    return raw


def _limbs(words: Array) -> Array:
    """u64[n, 4] of big-endian 32-byte words."""
    return np.ascontiguousarray(words[:, ::-1]).view("<u8")


def _mapping_slot(keys: Array, position: Array) -> Array:
    """Solidity's slot of mapping[key], as words."""
    items = np.concatenate([keys, position], axis=1).reshape(-1)
    return keccak256_batch(items, np.arange(len(keys) + 1, dtype="<u8") * np.uint64(64))


def _calldata(selectors: Array | int, *words: Array) -> Array:
    count = len(words[0])
    head = np.broadcast_to(np.asarray(selectors, ">u4"), (count,)).astype(">u4").view("u1").reshape(-1, 4)
    return np.concatenate([head, *words], axis=1)


def _selector(signature: str) -> int:
    raw = np.frombuffer(signature.encode(), "u1")
    return int.from_bytes(keccak256_batch(raw, np.array([0, len(raw)], "<u8"))[0, :4].tobytes(), "big")


def _columns(senders: Array, to: Array, data: list[Array], gas_limit: int, value: int = 0) -> TransactionColumns:
    """Legacy transactions of equal groups: row i has data[group(i)]; rows of one group share a length."""
    count = len(senders)
    lengths = np.concatenate([np.full(len(one), one.shape[1], "<u8") for one in data])
    u64 = np.zeros(count, "<u8")
    words = np.zeros((count, 4), "<u8")
    values = words.copy()
    values[:, 0] = value
    price = words.copy()
    price[:, 0] = 10
    none = np.zeros(count + 1, "<u8")
    empty20, empty32 = np.zeros((0, 20), "u1"), np.zeros((0, 32), "u1")
    return TransactionColumns(
        type=np.zeros(count, "u1"),
        chain_id=u64,
        nonce=u64,
        gas_limit=np.full(count, gas_limit, "<u8"),
        max_fee_per_gas=price,
        max_priority_fee_per_gas=price,
        to=np.ascontiguousarray(np.broadcast_to(to, (count, 20))),
        is_creation=np.zeros(count, "u1"),
        value=values,
        data_offsets=np.concatenate([np.zeros(1, "<u8"), np.cumsum(lengths, dtype="<u8")]),
        y_parity=np.zeros(count, "u1"),
        r=words,
        s=words,
        sender=np.ascontiguousarray(senders),
        hash=np.zeros((count, 32), "u1"),
        access_offsets=none,
        max_fee_per_blob_gas=words,
        blob_hash_offsets=none,
        authorization_offsets=none,
        data=np.concatenate([one.reshape(-1) for one in data]) if data else np.zeros(0, "u1"),
        access_address=empty20,
        access_key_offsets=np.zeros(1, "<u8"),
        access_key=empty32,
        blob_hash=empty32,
        authorization_chain_id=np.zeros((0, 4), "<u8"),
        authorization_address=empty20,
        authorization_nonce=np.zeros(0, "<u8"),
        authorization_y_parity=np.zeros(0, "u1"),
        authorization_r=np.zeros((0, 4), "<u8"),
        authorization_s=np.zeros((0, 4), "<u8"),
    )


def _accounts(base: BaseState, addresses: Array, code: int = 0, balance: int = _WEALTH) -> Array:
    count = len(addresses)
    balances = np.zeros((count, 4), "<u8")
    balances[:, 0], balances[:, 1] = balance % 2**64, balance >> 64
    return base.add_accounts(
        np.zeros(count), addresses, np.zeros(count), balances, np.full(count, code), np.full(count, _COMPLETE)
    )


def _contract(base: BaseState, number: int, code: bytes) -> tuple[bytes, int]:
    """(address, record) of a contract."""
    address = bytes([0xCC, *number.to_bytes(19, "big")])
    record = base.add_account(address, nonce=1, code=base.add_codes([code]), flags=AccountFlag(_COMPLETE))
    return address, record


def _set_balances(base: BaseState, token: int, owners: Array, amount: int, position: int = 0) -> None:
    count = len(owners)
    slots = _mapping_slot(_word_of_address(owners), _word_of_int(position, count))
    base.add_slots(np.full(count, token), _limbs(slots), _limbs(_word_of_int(amount, count)))


def _workload(base: BaseState, columns: TransactionColumns, unit: str = "transaction", operations: int = 1) -> Workload:
    return Workload(base, Batch.of(columns, block_environments([_CONTEXT], base)), unit, operations)


def erc20_transfer(count: int, *, existing: bool = True) -> Workload:
    """transfer(receiver, amount), every sender and receiver different; receivers hold tokens already or not."""
    base = BaseState(accounts_complete=True)
    senders, receivers = _addresses(_SENDERS, count), _addresses(_RECEIVERS, count)
    address, token = _contract(base, 1, _RUNTIME["BenchToken"])
    _accounts(base, senders)
    _set_balances(base, token, senders, 10**9)
    if existing:
        _set_balances(base, token, receivers, 5)
    amounts = np.arange(count, dtype="u8") % 1000 + 1
    data = _calldata(_TRANSFER, _word_of_address(receivers), _word_of_int(amounts, count))
    return _workload(base, _columns(senders, np.frombuffer(address, "u1"), [data], 100_000))


def erc20_new_receiver(count: int) -> Workload:
    """`erc20_transfer` to receivers without tokens: a slot is set that was zero."""
    return erc20_transfer(count, existing=False)


def plain_transfer(count: int) -> Workload:
    """One wei to an account that exists."""
    base = BaseState(accounts_complete=True)
    senders, receivers = _addresses(_SENDERS, count), _addresses(_RECEIVERS, count)
    _accounts(base, senders)
    _accounts(base, receivers)
    return _workload(base, _columns(senders, receivers, [np.zeros((count, 0), "u1")], 21_000, value=1))


def four_functions(count: int) -> Workload:
    """transfer, approve, transferFrom and balanceOf of one token, shuffled on arrival."""
    base = BaseState(accounts_complete=True)
    senders, receivers = _addresses(_SENDERS, count), _addresses(_RECEIVERS, count)
    address, token = _contract(base, 1, _RUNTIME["BenchToken"])
    _accounts(base, senders)
    _set_balances(base, token, senders, 10**9)
    _set_balances(base, token, receivers, 5)
    kinds = np.random.default_rng(20261122).integers(0, 4, count)
    owner, receiver, amount = _word_of_address(senders), _word_of_address(receivers), _word_of_int(7, count)
    # transferFrom spends the sender's allowance for itself
    inner = _mapping_slot(owner, _word_of_int(1, count))
    allowance = _mapping_slot(owner, inner)
    base.add_slots(np.full(count, token), _limbs(allowance), _limbs(_word_of_int(10**9, count)))
    bodies = [
        _calldata(_TRANSFER, receiver, amount),
        _calldata(_APPROVE, receiver, amount),
        _calldata(_TRANSFER_FROM, owner, receiver, amount),
        _calldata(_BALANCE_OF, receiver),
    ]
    rows = [bodies[kind][row : row + 1] for row, kind in enumerate(kinds.tolist())]
    return _workload(base, _columns(senders, np.frombuffer(address, "u1"), rows, 100_000))


def swap(count: int) -> Workload:
    """swapExactTokensForTokens through a router, every sender on a pair of its own."""
    base = BaseState(accounts_complete=True)
    senders, pairs = _addresses(_SENDERS, count), _addresses(_PAIRS, count)
    router, _ = _contract(base, 1, _RUNTIME["BenchRouter"])
    tokens = [_contract(base, 2 + i, _RUNTIME["BenchToken"]) for i in range(2)]
    _accounts(base, senders)
    records = _accounts(base, pairs, base.add_codes([_RUNTIME["BenchPair"]]), 0)
    reserve = 10**15
    packed = np.zeros((count, 4), "<u8")
    for shift in (0, 112):
        word = reserve << shift
        packed += np.frombuffer(word.to_bytes(32, "little"), "<u8")
    token_words = [_limbs(_word_of_address(np.frombuffer(address, "u1").reshape(1, 20))) for address, _ in tokens]
    for position, value in enumerate((*token_words, packed, np.array([[1, 0, 0, 0]], "<u8"))):
        keys = np.zeros((count, 4), "<u8")
        keys[:, 0] = position
        base.add_slots(records, keys, np.broadcast_to(value, (count, 4)))
    for _, token in tokens:
        _set_balances(base, token, pairs, reserve)
        _set_balances(base, token, senders, 10**12)
    inner = _mapping_slot(_word_of_address(senders), _word_of_int(1, count))
    spender = np.broadcast_to(np.frombuffer(bytes(12) + router, "u1"), (count, 32))
    allowance = _mapping_slot(np.ascontiguousarray(spender), inner)
    base.add_slots(np.full(count, tokens[0][1]), _limbs(allowance), _limbs(_word_of_int(10**18, count)))
    selector = _selector("swapExactTokensForTokens(address,uint256,uint256,address)")
    data = _calldata(
        selector,
        _word_of_address(pairs),
        _word_of_int(10**9, count),
        _word_of_int(1, count),
        _word_of_address(senders),
    )
    return _workload(base, _columns(senders, np.frombuffer(router, "u1"), [data], 400_000))


# n from calldata; x = 3; do x = (x * x + 7) ^ 0xdeadbeef; while --n; return x: 15 instructions a turn.
_ARITHMETIC_LOOP = bytes.fromhex("5f3560035b800260070163deadbeef18906001900390816004575f5260205ff3")
_ARITHMETIC_TURNS, _ARITHMETIC_OPERATIONS = 1000, 15
# n from calldata; do mstore(0, keccak256(0, 64)) while --n.
_KECCAK_LOOP = bytes.fromhex("5f355b60405f205f5260019003806002575f5ff3")
_KECCAK_TURNS = 200


def _loop(count: int, code: bytes, turns: int, unit: str, operations: int) -> Workload:
    base = BaseState(accounts_complete=True)
    senders = _addresses(_SENDERS, count)
    address, _ = _contract(base, 1, code)
    _accounts(base, senders)
    data = _word_of_int(turns, count)
    return _workload(base, _columns(senders, np.frombuffer(address, "u1"), [data], 10_000_000), unit, operations)


def arithmetic_loop(count: int) -> Workload:
    """Multiply, add, xor and loop."""
    return _loop(count, _ARITHMETIC_LOOP, _ARITHMETIC_TURNS, "instruction", _ARITHMETIC_TURNS * _ARITHMETIC_OPERATIONS)


def keccak_loop(count: int) -> Workload:
    """KECCAK256 of 64 bytes, again and again."""
    return _loop(count, _KECCAK_LOOP, _KECCAK_TURNS, "hash", _KECCAK_TURNS)


def mixed_contracts(count: int) -> Workload:
    """transfer on 100 tokens whose codes all differ, shuffled on arrival."""
    base = BaseState(accounts_complete=True)
    senders, receivers = _addresses(_SENDERS, count), _addresses(_RECEIVERS, count)
    tokens = [_contract(base, 1 + i, _RUNTIME["BenchToken"] + bytes([0xFE, i])) for i in range(100)]
    _accounts(base, senders)
    picked = np.random.default_rng(20261122).integers(0, len(tokens), count)
    slots = _mapping_slot(_word_of_address(senders), _word_of_int(0, count))
    records = np.array([record for _, record in tokens], "<u4")
    base.add_slots(records[picked], _limbs(slots), _limbs(_word_of_int(10**9, count)))
    targets = np.frombuffer(b"".join(address for address, _ in tokens), "u1").reshape(-1, 20)[picked]
    data = _calldata(_TRANSFER, _word_of_address(receivers), _word_of_int(7, count))
    return _workload(base, _columns(senders, targets, [data], 100_000))


WORKLOADS: Mapping[str, Callable[[int], Workload]] = {
    "erc20_transfer": erc20_transfer,
    "erc20_new_receiver": erc20_new_receiver,
    "plain_transfer": plain_transfer,
    "four_functions": four_functions,
    "swap": swap,
    "arithmetic_loop": arithmetic_loop,
    "keccak_loop": keccak_loop,
    "mixed_contracts": mixed_contracts,
}
