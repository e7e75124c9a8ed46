"""Small chains made up from a seed, with the state after each block held in memory to compare with."""

import random
from dataclasses import dataclass

import numpy as np

from core.chain import SealedBlock
from core.chain_rules import make_block, next_context
from core.execution import ExecutionOutcome
from core.genesis import Genesis, Predeploy, dev_genesis
from core.hashing import keccak256
from core.memory_state import AccountContents, MemoryState
from core.receipts import Log, ReceiptColumns
from core.state import AccountChange, StateDifference
from core.transaction import Transaction, TransactionColumns, TransactionType

CHAIN_ID = 1337
ADDRESSES = [keccak256(bytes([index]))[:20] for index in range(24)]
TOPICS = [keccak256(b"topic" + bytes([index])) for index in range(6)]


@dataclass(frozen=True)
class MadeBlock:
    """A block as `Replica.append` takes it, and the state after it."""

    sealed: SealedBlock
    receipts: ReceiptColumns
    difference: StateDifference
    state: MemoryState


def make_genesis(chain_id: int = CHAIN_ID) -> Genesis:
    balances = {address: 10**18 for address in ADDRESSES[:8]}
    contract = Predeploy(b"\x60\x00", {1: 2, 2**255: 7})
    return Genesis.from_geth(dev_genesis(chain_id, balances, {ADDRESSES[8]: contract}, timestamp=1))


def make_chain(genesis: Genesis, blocks: int, seed: int = 0) -> list[MadeBlock]:
    """Block 0 and `blocks` more, with random transactions, logs and changes of state."""
    random_source = random.Random(seed)
    state = MemoryState().apply(genesis.difference)
    chain = [MadeBlock(genesis.block, ReceiptColumns.empty(), genesis.difference, state)]
    for _ in range(blocks):
        chain.append(_next(genesis, chain, random_source))
    return chain


def _next(genesis: Genesis, chain: list[MadeBlock], source: random.Random) -> MadeBlock:
    parent = chain[-1]
    header = parent.sealed.block.header
    hashes = [made.sealed.hash for made in chain]
    context = next_context(header, genesis.config, hashes, timestamp=header.timestamp + 1, coinbase=ADDRESSES[0])
    count = source.randrange(4)
    transactions = TransactionColumns.from_transactions(
        [_transaction(source, header.number * 10 + i) for i in range(count)], source.choices(ADDRESSES, k=count)
    )
    receipts = ReceiptColumns.from_rows(
        [(2, True, 21_000, tuple(_log(source) for _ in range(source.randrange(3)))) for _ in range(count)]
    )
    difference = _difference(source, parent.state)
    included = np.arange(count, dtype="<u4")
    outcome = ExecutionOutcome(included, (), receipts, difference, 21_000 * count, 0)
    sealed = make_block(parent.sealed, context, transactions, outcome, parent.state)
    return MadeBlock(sealed, receipts, difference, parent.state.apply(difference))


def _transaction(source: random.Random, nonce: int) -> Transaction:
    return Transaction(
        type=TransactionType.FEE_MARKET,
        chain_id=CHAIN_ID,
        nonce=nonce,
        gas_limit=21_000,
        max_fee_per_gas=10**10,
        max_priority_fee_per_gas=1,
        to=source.choice(ADDRESSES),
        value=source.getrandbits(64),
        data=source.randbytes(source.randrange(40)),
        y_parity=0,
        r=source.getrandbits(250) + 1,
        s=source.getrandbits(250) + 1,
    )


def _log(source: random.Random) -> Log:
    return Log(source.choice(ADDRESSES), tuple(source.choices(TOPICS, k=source.randrange(4))), source.randbytes(5))


def _difference(source: random.Random, state: MemoryState) -> StateDifference:
    changes = {}
    for address in source.sample(ADDRESSES, 5):
        before = state.accounts.get(address, AccountContents())
        if source.random() < 0.15 and address in state.accounts:
            changes[address] = AccountChange(None, storage_cleared=bool(before.storage))
            continue
        code = source.randbytes(8) if source.random() < 0.2 else None
        cleared = bool(before.storage) and source.random() < 0.2
        storage = {slot: source.choice([0, 1, 2**200]) for slot in source.sample(range(12), source.randrange(6))}
        after = AccountContents(before.nonce + 1, source.getrandbits(70), code or before.code).as_change().account
        changes[address] = AccountChange(after, storage, cleared, code)
    return StateDifference.from_changes(changes)


def holds(state: MemoryState) -> dict[bytes, tuple[int, int, bytes, dict[int, int]]]:
    """Everything in a state of this module's chains."""
    return {address: (one.nonce, one.balance, one.code, dict(one.storage)) for address, one in state.accounts.items()}
