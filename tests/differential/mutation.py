"""Very many programs, quickly: mutants of the generator's cases, made with numpy, as batches of instances mode.

A `Corpus` holds cases as columns; `Corpus.batch` makes a batch of worlds from it, each a copy of a case in which most
programs, and some call data and gas limits, are changed at random. Equal seeds make equal batches. Knows nothing of
engines.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from core.columns import Array, limbs_from_ints
from core.execution import BlockContext
from core.fork import Fork
from core.memory_state import AccountContents
from core.transaction import TransactionColumns
from tests.differential.assembler import OPCODES
from tests.differential.generator import Case, generate
from worker.evm.base_state import BaseState
from worker.evm.batch import Batch, block_environments
from worker.evm.layouts import AccountFlag

__all__ = ["Corpus", "MutatedBatch"]

FORKS = (Fork.CANCUN, Fork.PRAGUE, Fork.OSAKA)
CONTEXTS = 24
MUTATIONS_MAX = 3
CHANCE_OF_MUTATION = 0.65  # of each of MUTATIONS_MAX, for each program
CHANCE_OF_OTHER_DATA = 0.3
CHANCE_OF_OTHER_GAS = 0.2
GAS_LIMIT_MIN = 21_000
DELEGATION_BYTE = 0xEF

_OPCODES = np.array(sorted(OPCODES.values()), "u1")


@dataclass(frozen=True, slots=True, eq=False)
class MutatedBatch:
    """A base with many worlds, the batch that runs on it, and how many programs they hold."""

    base: BaseState
    batch: Batch
    programs: int


@dataclass(frozen=True, slots=True, eq=False)
class Corpus:
    """Cases in columns. `*_offsets` cut a table by the rows of the one above: cases own accounts and transactions,
    accounts own slots and code bytes, transactions own authorizations."""

    contexts: tuple[BlockContext, ...]
    case_context: Array
    account_offsets: Array
    address: Array
    nonce: Array
    balance: Array
    slot_offsets: Array
    slot: Array
    value: Array
    code_offsets: Array
    code: Array
    transaction_offsets: Array
    transactions: TransactionColumns
    authority: Array
    authority_valid: Array

    @classmethod
    def of(cls, first_seed: int, count: int) -> "Corpus":
        """Cases of the generator, the forks taken in turn, in a few contexts."""
        cases = [generate(seed, FORKS[seed % len(FORKS)]) for seed in range(first_seed, first_seed + count)]
        contexts = tuple(case.context for case in cases[:CONTEXTS])
        assert CONTEXTS % len(FORKS) == 0, "a case keeps its fork"
        accounts = [item for case in cases for item in case.state.accounts.items()]
        contents = [one for _, one in accounts]
        transactions = _joined([_with_fitting_nonces(case) for case in cases])
        recovered = Batch.of(transactions, np.zeros(0))
        return cls(
            contexts=contexts,
            case_context=np.arange(count, dtype="<u4") % CONTEXTS,
            account_offsets=_offsets([len(case.state.accounts) for case in cases]),
            address=np.frombuffer(b"".join(address for address, _ in accounts), "u1").reshape(-1, 20),
            nonce=np.array([one.nonce for one in contents], "<u8"),
            balance=limbs_from_ints(one.balance for one in contents),
            slot_offsets=_offsets([len(one.storage) for one in contents]),
            slot=limbs_from_ints(slot for one in contents for slot in one.storage),
            value=limbs_from_ints(value for one in contents for value in one.storage.values()),
            code_offsets=_offsets([len(one.code) for one in contents]),
            code=np.frombuffer(b"".join(one.code for one in contents), "u1"),
            transaction_offsets=_offsets([len(case.transactions) for case in cases]),
            transactions=transactions,
            authority=recovered.authorities,
            authority_valid=recovered.authority_valid,
        )

    def batch(self, seed: int, worlds: int, *, single_step: bool = False) -> MutatedBatch:
        """`worlds` mutated copies of cases drawn at random."""
        choose = np.random.default_rng(seed)
        cases = choose.integers(0, len(self.case_context), worlds)
        base = BaseState(accounts_complete=True, single_step=single_step)
        programs = self._fill(base, choose, cases)
        rows, row_offsets = _ragged(self.transaction_offsets, cases)
        world_of_row = np.repeat(np.arange(worlds, dtype="<u4"), np.diff(row_offsets))
        authorizations, _ = _ragged(self.transactions.authorization_offsets.astype(np.int64), rows)
        transactions = _mutate_transactions(choose, self.transactions.take(rows))
        batch = Batch(
            transactions=transactions,
            blocks=block_environments(self.contexts, base),
            worlds=world_of_row,
            block_numbers=self.case_context[cases][world_of_row],
            kinds=np.zeros(len(rows), "u1"),
            authorities=np.ascontiguousarray(self.authority[authorizations]),
            authority_valid=np.ascontiguousarray(self.authority_valid[authorizations]),
        )
        return MutatedBatch(base, batch, programs + int(transactions.is_creation.sum()))

    def _fill(self, base: BaseState, choose: np.random.Generator, cases: Array) -> int:
        """Enter the worlds' accounts, codes and slots; the number of programs."""
        accounts, offsets = _ragged(self.account_offsets, cases)
        world_of_account = np.repeat(np.arange(len(cases), dtype="<u4"), np.diff(offsets))
        places, code_offsets = _ragged(self.code_offsets, accounts)
        raw = _mutate_code(choose, self.code[places], code_offsets).tobytes()
        bounds = code_offsets.tolist()
        has_code = np.diff(code_offsets) > 0
        codes = [raw[bounds[i] : bounds[i + 1]] for i in np.flatnonzero(has_code).tolist()]
        numbers = np.zeros(len(accounts), "<u4")
        numbers[has_code] = base.add_codes(codes) + np.arange(len(codes), dtype="<u4")
        slots, slot_offsets = _ragged(self.slot_offsets, accounts)
        stored = np.diff(slot_offsets)
        flags = np.where(stored > 0, int(AccountFlag.HAS_STORAGE), 0) | int(
            AccountFlag.EXISTS | AccountFlag.STORAGE_COMPLETE
        )
        records = base.add_accounts(
            world_of_account, self.address[accounts], self.nonce[accounts], self.balance[accounts], numbers, flags
        )
        base.add_slots(np.repeat(records, stored), self.slot[slots], self.value[slots])
        return len(codes)


def _with_fitting_nonces(case: Case) -> TransactionColumns:
    """Every transaction runs on the case's own state: its nonce is its sender's, or too high where it was off."""
    accounts = case.state.accounts
    following: dict[bytes, int] = {}
    nonces = []
    for sender, nonce in zip(case.transactions.sender, case.transactions.nonce.tolist(), strict=True):
        own = accounts.get(sender.tobytes(), AccountContents()).nonce
        expected = following.setdefault(sender.tobytes(), own)
        nonces.append(own if nonce == expected else own + 1)
        following[sender.tobytes()] += nonce == expected
    return replace(case.transactions, nonce=np.array(nonces, "<u8"))


def _joined(tables: Sequence[TransactionColumns]) -> TransactionColumns:
    rows = [table.transaction(row) for table in tables for row in range(len(table))]
    senders = [sender.tobytes() for table in tables for sender in table.sender]
    return TransactionColumns.from_transactions(rows, senders)


def _offsets(counts: Sequence[int]) -> Array:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])


def _ragged(offsets: Array, rows: Array) -> tuple[Array, Array]:
    """Indices of everything that these rows own, in order, and where each row's part begins among them."""
    counts = offsets[rows + 1] - offsets[rows]
    ends = np.cumsum(counts)
    within = np.arange(int(counts.sum())) - np.repeat(ends - counts, counts)
    return np.repeat(offsets[rows], counts) + within, np.concatenate([np.zeros(1, np.int64), ends])


def _mutate_code(choose: np.random.Generator, code: Array, offsets: Array) -> Array:
    """Some bytes of most programs become instructions or noise. Delegations stay."""
    code, lengths = code.copy(), np.diff(offsets)
    open_to_change = np.flatnonzero(lengths)
    open_to_change = open_to_change[code[offsets[open_to_change]] != DELEGATION_BYTE]
    for _ in range(MUTATIONS_MAX):
        picked = open_to_change[choose.random(len(open_to_change)) < CHANCE_OF_MUTATION]
        places = offsets[picked] + (choose.random(len(picked)) * lengths[picked]).astype(np.int64)
        noise = choose.integers(0, 256, len(picked), dtype="u1")
        code[places] = np.where(choose.random(len(picked)) < 0.6, choose.choice(_OPCODES, len(picked)), noise)
    return code


def _mutate_transactions(choose: np.random.Generator, transactions: TransactionColumns) -> TransactionColumns:
    count = len(transactions)
    offsets = transactions.data_offsets.astype(np.int64)
    lengths, data = np.diff(offsets), transactions.data.copy()
    picked = np.flatnonzero((lengths > 0) & (choose.random(count) < CHANCE_OF_OTHER_DATA))
    places = offsets[picked] + (choose.random(len(picked)) * lengths[picked]).astype(np.int64)
    data[places] = choose.integers(0, 256, len(picked), dtype="u1")
    gas_limit = transactions.gas_limit.copy()
    picked = np.flatnonzero((gas_limit > GAS_LIMIT_MIN) & (choose.random(count) < CHANCE_OF_OTHER_GAS))
    room = gas_limit[picked] - np.uint64(GAS_LIMIT_MIN)
    gas_limit[picked] = GAS_LIMIT_MIN + (choose.random(len(picked)) * room).astype("<u8")
    return replace(transactions, data=data, gas_limit=gas_limit)
