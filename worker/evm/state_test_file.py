"""Ethereum's state-test files: what each entry runs and what it expects (EEST and ethereum/tests formats).

Knows nothing of executors. Post entries without a signed transaction cannot be run.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from core.errors import InvalidInput
from core.execution import BlockContext
from core.fork import Fork
from core.hashing import keccak256
from core.memory_state import AccountContents, MemoryState
from core.transaction import Transaction, decode_transaction

__all__ = ["StateTestEntry", "read_state_test_file"]


@dataclass(frozen=True, slots=True)
class StateTestEntry:
    """One post entry: `transaction` decodes on demand, since some entries hold one that must be refused."""

    name: str
    context: BlockContext
    accounts: dict[bytes, AccountContents]
    raw_transaction: bytes
    expected_root: bytes
    expected_logs_hash: bytes
    must_reject: bool

    def state(self) -> MemoryState:
        """The state before."""
        return MemoryState(self.accounts)

    def transaction(self) -> Transaction:
        """The signed transaction; raises TransactionError when it is malformed."""
        return decode_transaction(self.raw_transaction)


def read_state_test_file(raw: bytes) -> Iterator[StateTestEntry]:
    """Every post entry of a file, in order. Raises InvalidInput saying what is missing or malformed."""
    try:
        tests = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"not JSON: {error}") from error
    if not isinstance(tests, dict) or not all(isinstance(one, dict) and "post" in one for one in tests.values()):
        raise InvalidInput('not a state test: expected {name: {"env", "pre", "transaction", "post"}}')
    for key, test in tests.items():
        try:
            yield from _entries(key, test)
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise InvalidInput(f"state test {key}: {type(error).__name__}: {error}") from error


def _entries(key: str, test: dict[str, Any]) -> Iterator[StateTestEntry]:
    accounts = {_bytes(address): _account(one) for address, one in test["pre"].items()}
    for fork_name, entries in test["post"].items():
        if fork_name.upper() not in Fork.__members__:
            raise InvalidInput(f"state test {key}: unknown fork {fork_name}; known are {', '.join(Fork.__members__)}")
        for index, post in enumerate(entries):
            yield StateTestEntry(
                name=f"{key}/{fork_name}/{index}",
                context=_context(test, Fork[fork_name.upper()]),
                accounts=accounts,
                raw_transaction=_bytes(post["txbytes"]),
                expected_root=_bytes(post["hash"]),
                expected_logs_hash=_bytes(post["logs"]),
                must_reject="expectException" in post,
            )


def _account(fields: dict[str, Any]) -> AccountContents:
    return AccountContents(
        nonce=_int(fields["nonce"]),
        balance=_int(fields["balance"]),
        code=_bytes(fields["code"]),
        storage={_int(slot): _int(value) for slot, value in fields["storage"].items()},
    )


def _context(test: dict[str, Any], fork: Fork) -> BlockContext:
    env = test["env"]
    number = _int(env["currentNumber"])
    return BlockContext(
        fork=fork,
        chain_id=_int(test.get("config", {}).get("chainid", "0x1")),
        number=number,
        timestamp=_int(env["currentTimestamp"]),
        gas_limit=_int(env["currentGasLimit"]),
        coinbase=_bytes(env["currentCoinbase"]),
        base_fee_per_gas=_int(env.get("currentBaseFee", "0x0")),
        prev_randao=_bytes(env["currentRandom"]),
        excess_blob_gas=_int(env.get("currentExcessBlobGas", "0x0")),
        # State tests have no chain: by convention the hash of a block is that of its number in decimal.
        block_hashes=tuple(keccak256(str(one).encode()) for one in range(max(0, number - 256), number)),
    )


def _int(text: str) -> int:
    return int(text, 16)


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))
