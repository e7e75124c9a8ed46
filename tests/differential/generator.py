"""Random blocks for comparing executors: a state, a context and transactions, all from one seed.

    python -m tests.differential.generator --seed 1 --count 1000 --left reference --right reference

Two executors agree when every byte of their outcomes is equal, and each transaction is refused for the same reason. The
last line is `N passed, M failed`; each failure is printed with its seed.
"""

import argparse
import random
import sys
from dataclasses import dataclass, replace

from coincurve import PrivateKey

from core.execution import BlockContext, ExecutionOutcome, Executor
from core.fork import Fork
from core.gas import floor_gas, intrinsic_gas
from core.hashing import keccak256
from core.memory_state import AccountContents, MemoryState
from core.signature import authorization_hash
from core.transaction import AccessListEntry, Authorization, Transaction, TransactionColumns, TransactionType
from node.executors import EXECUTORS
from tests.differential.programs import ProgramWriter, interesting_word

__all__ = ["Case", "compare", "difference_between", "generate"]

_CHAIN_ID = 1
_BASE_FEE = 7
_SENDER_COUNT = 4
_CONTRACT_COUNT_MAX = 5
_TRANSACTION_COUNT_MAX = 6
_ABSENT = bytes.fromhex("00000000000000000000000000000000000abcde")
_COINBASE = bytes.fromhex("c0ffee000000000000000000000000000000c0de")


@dataclass(frozen=True, slots=True)
class Case:
    """One block to execute; `seed` makes it again."""

    seed: int
    state: MemoryState
    context: BlockContext
    transactions: TransactionColumns


def generate(seed: int, fork: Fork = Fork.OSAKA) -> Case:
    """The case of this seed. Equal seeds give equal cases, whatever else has been generated."""
    return _Generator(seed, fork).case()


class _Generator:
    def __init__(self, seed: int, fork: Fork) -> None:
        self.seed = seed
        self.fork = fork
        self.choose = random.Random(f"{fork.name} {seed}")
        self.keys = [PrivateKey(keccak256(b"sender" + bytes([n]))) for n in range(_SENDER_COUNT)]
        self.senders = [keccak256(key.public_key.format(compressed=False)[1:])[12:] for key in self.keys]
        count = self.choose.randint(1, _CONTRACT_COUNT_MAX)
        self.contracts = [(0x1000 + n).to_bytes(20, "big") for n in range(count)]
        self.addresses = [*self.contracts, *self.contracts, *self.senders, _ABSENT, _COINBASE]
        self.writer = ProgramWriter(self.choose, self.addresses, self._precompiles())

    def case(self) -> Case:
        context = self._context()
        accounts = {address: self._contract() for address in self.contracts}
        accounts |= {address: self._sender() for address in self.senders}
        if self.choose.random() < 0.5:
            accounts[_COINBASE] = AccountContents(balance=1)
        nonces = {address: accounts[address].nonce for address in self.senders}
        transactions, senders = [], []
        for _ in range(self.choose.randint(1, _TRANSACTION_COUNT_MAX)):
            sender = self.choose.choice(self.senders)
            tx = self._transaction(nonces[sender])
            nonces[sender] += tx.nonce == nonces[sender]
            transactions.append(tx)
            senders.append(sender)
        columns = TransactionColumns.from_transactions(transactions, senders)
        return Case(self.seed, MemoryState(accounts), context, columns)

    def _precompiles(self) -> list[int]:
        """Numbers of the fork's precompiled contracts, and the first that is none."""
        last = 0x11 if self.fork >= Fork.PRAGUE else 0x0A
        return [*range(1, last + 2), *([0x100] if self.fork >= Fork.OSAKA else [])]

    def _context(self) -> BlockContext:
        number = self.choose.choice((1, 255, 256, 300))
        return BlockContext(
            fork=self.fork,
            chain_id=_CHAIN_ID,
            number=number,
            timestamp=self.choose.choice((1, 1_700_000_000, 2**40)),
            gas_limit=self.choose.choice((30_000_000, 30_000_000, 1_000_000)),
            coinbase=self.choose.choice((_COINBASE, _COINBASE, self.senders[0], self.contracts[0])),
            base_fee_per_gas=_BASE_FEE,
            prev_randao=self.choose.randbytes(32),
            excess_blob_gas=self.choose.choice((0, 0, 393_216, 60_000_000)),
            block_hashes=tuple(keccak256(n.to_bytes(8, "big")) for n in range(max(0, number - 256), number)),
        )

    def _contract(self) -> AccountContents:
        slots = self.choose.sample((0, 1, 2, 3, 2**256 - 1), self.choose.randint(0, 3))
        storage = {slot: self.choose.choice((1, 2, 2**256 - 1)) for slot in slots}
        code = self.writer.program()
        if self.fork >= Fork.PRAGUE and self.choose.random() < 0.05:
            code = b"\xef\x01\x00" + self.choose.choice(self.addresses)
        return AccountContents(self.choose.choice((1, 1, 5)), self.choose.choice((0, 1_000, 10**18)), code, storage)

    def _sender(self) -> AccountContents:
        balance = 10**18 if self.choose.random() < 0.95 else 1_000_000
        code = b""
        if self.fork >= Fork.PRAGUE and self.choose.random() < 0.1:
            code = b"\xef\x01\x00" + self.choose.choice(self.addresses)
        return AccountContents(self.choose.choice((0, 0, 1, 7)), balance, code)

    def _transaction(self, nonce: int) -> Transaction:
        kind = self.choose.choice(self._types())
        fee = self.choose.choice((_BASE_FEE, 10, 10, 10, _BASE_FEE - 1 if self.choose.random() < 0.1 else 100))
        priority = fee if kind <= TransactionType.ACCESS_LIST else self.choose.choice((0, 0, 1, fee, fee))
        creates = self.choose.random() < 0.15 and kind <= TransactionType.FEE_MARKET
        tx = Transaction(
            type=kind,
            chain_id=None if kind == TransactionType.LEGACY and self.choose.random() < 0.3 else _CHAIN_ID,
            nonce=nonce + (self.choose.choice((-1, 1)) if nonce and self.choose.random() < 0.04 else 0),
            gas_limit=0,
            max_fee_per_gas=fee,
            max_priority_fee_per_gas=priority,
            to=None if creates else self.choose.choice(self.addresses),
            value=self.choose.choice((0, 0, 1, 10, 10**16, 10**19 if self.choose.random() < 0.1 else 3)),
            data=self.writer.program(6) if creates else self.choose.randbytes(self.choose.choice((0, 4, 36, 100))),
            y_parity=0,
            r=1,
            s=1,
            access_list=self._access_list() if kind != TransactionType.LEGACY else (),
            max_fee_per_blob_gas=self.choose.choice((1, 100, 10**9)) if kind == TransactionType.BLOB else 0,
            blob_versioned_hashes=self._blobs() if kind == TransactionType.BLOB else (),
            authorizations=self._authorizations() if kind == TransactionType.SET_CODE else (),
        )
        return replace(tx, gas_limit=self._gas_limit(tx))

    def _types(self) -> list[TransactionType]:
        types = [TransactionType.LEGACY, TransactionType.ACCESS_LIST, TransactionType.FEE_MARKET]
        weighted = types * 3 + [TransactionType.BLOB]
        return weighted + [TransactionType.SET_CODE] * 2 if self.fork >= Fork.PRAGUE else weighted

    def _gas_limit(self, tx: Transaction) -> int:
        """Mostly enough; else at the edge of what the transaction costs before it runs, or a little above."""
        least = max(intrinsic_gas(tx, self.fork), floor_gas(tx, self.fork))
        kind = self.choose.random()
        if kind < 0.6:
            return least + self.choose.choice((200_000, 700_000))
        if kind < 0.9:
            return least + self.choose.randrange(40_000)
        return least + self.choose.choice((-1, 0, 1, 100, 2_300, 2**24))

    def _access_list(self) -> tuple[AccessListEntry, ...]:
        addresses = self.choose.sample(self.addresses, self.choose.randint(0, 2))
        keys = [slot.to_bytes(32, "big") for slot in (0, 1, 2, 2**256 - 1)]
        return tuple(AccessListEntry(one, tuple(self.choose.choices(keys, k=2))) for one in addresses)

    def _blobs(self) -> tuple[bytes, ...]:
        version = b"\1" if self.choose.random() < 0.9 else b"\2"
        return tuple(version + self.choose.randbytes(31) for _ in range(self.choose.choice((0, 1, 2, 6, 7))))

    def _authorizations(self) -> tuple[Authorization, ...]:
        return tuple(self._authorization() for _ in range(self.choose.choice((0, 1, 1, 2, 3))))

    def _authorization(self) -> Authorization:
        chain_id = self.choose.choice((0, _CHAIN_ID, _CHAIN_ID, 2))
        target = self.choose.choice((*self.contracts, bytes(20), bytes(19) + b"\4"))
        unsigned = Authorization(chain_id, target, self.choose.choice((0, 0, 1, 2, 7)), 0, 0, 0)
        signature = self.choose.choice(self.keys).sign_recoverable(authorization_hash(unsigned), hasher=None)
        if self.choose.random() < 0.1:
            return replace(unsigned, r=interesting_word(self.choose), s=interesting_word(self.choose), y_parity=1)
        r, s = (int.from_bytes(signature[i : i + 32], "big") for i in (0, 32))
        return replace(unsigned, r=r, s=s, y_parity=signature[64])


def difference_between(left: ExecutionOutcome, right: ExecutionOutcome) -> str | None:
    """The first thing in which two outcomes differ, or None. Of refusals, the reasons count and not the wording."""
    pairs: list[tuple[str, object, object]] = [
        (
            "rejections",
            [(one.index, one.reason) for one in left.rejections],
            [(one.index, one.reason) for one in right.rejections],
        ),
        ("included", left.included.tolist(), right.included.tolist()),
        ("gas used by each", left.receipts.gas_used.tolist(), right.receipts.gas_used.tolist()),
        ("success of each", left.receipts.succeeded.tolist(), right.receipts.succeeded.tolist()),
        ("receipts", left.receipts.to_bytes(), right.receipts.to_bytes()),
        ("state difference", dict(left.difference.changes()), dict(right.difference.changes())),
        ("bytes of the state difference", left.difference.to_bytes(), right.difference.to_bytes()),
        ("gas", (left.gas_used, left.blob_gas_used), (right.gas_used, right.blob_gas_used)),
        ("requests", left.requests, right.requests),
    ]
    for name, one, other in pairs:
        if one != other:
            return f"{name}: {one!r} and {other!r}"
    return None


def compare(case: Case, left: Executor, right: Executor) -> str | None:
    """Execute a case on both and return how they differ."""
    outcomes = [one.execute_transactions(case.state, case.context, case.transactions) for one in (left, right)]
    return difference_between(*outcomes)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.differential.generator", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=1_000)
    parser.add_argument("--fork", choices=("cancun", "prague", "osaka"), default="osaka")
    parser.add_argument("--left", choices=sorted(EXECUTORS), default="reference")
    parser.add_argument("--right", choices=sorted(EXECUTORS), required=True)
    options = parser.parse_args(arguments)
    left, right = EXECUTORS[options.left](), EXECUTORS[options.right]()
    failed = 0
    for seed in range(options.seed, options.seed + options.count):
        difference = compare(generate(seed, Fork[options.fork.upper()]), left, right)
        if difference is not None:
            failed += 1
            print(f"seed {seed}: {difference}", flush=True)  # noqa: T201
    print(f"{options.count - failed} passed, {failed} failed")  # noqa: T201
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
