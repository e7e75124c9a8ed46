"""What a block of 1,000 transfers costs a node beside its execution: state root, sealing, and the replica's append.

`python -m tests.bench.store` checks the state it arrives at against one built anew, and appends a JSON line.
"""

import json
import platform
import random
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np

from core.chain_rules import make_block, next_context
from core.execution import ExecutionOutcome
from core.genesis import Genesis, dev_genesis
from core.hashing import keccak256
from core.receipts import ReceiptColumns
from core.state import Account, AccountChange, StateDifference
from core.state_trie import encode_account
from core.store import Replica
from core.transaction import Transaction, TransactionColumns, TransactionType
from core.trie import root_of

ACCOUNTS = 20_000
TRANSFERS = 1_000
ACCOUNTS_CHANGED = 2 * TRANSFERS
BLOCKS = 20
RESULTS = Path(__file__).parent / "results"

_Result = TypeVar("_Result")


def main() -> None:
    """Run, check, print and record."""
    source = random.Random(1)
    addresses = [keccak256(index.to_bytes(4, "big"))[:20] for index in range(ACCOUNTS)]
    balances = dict.fromkeys(addresses, 10**24)
    genesis = Genesis.from_geth(dev_genesis(1337, balances, {}, timestamp=1))
    held = {address: change.account for address, change in genesis.difference.changes() if change.account}
    seconds: dict[str, list[float]] = {"root": [], "seal": [], "append": []}
    with tempfile.TemporaryDirectory() as folder, Replica.open(Path(folder), genesis, states_kept=8) as replica:
        for number in range(1, BLOCKS + 1):
            accounts = {
                address: Account(number, source.getrandbits(80))
                for address in source.sample(addresses, ACCOUNTS_CHANGED)
            }
            held.update(accounts)
            append_block(replica, genesis, accounts, source, seconds)
        assert replica.state(BLOCKS).root == root_of({keccak256(key): encode_account(one) for key, one in held.items()})
    best = {name: min(times) for name, times in seconds.items()}
    record(
        {f"{name}_s": round(value, 4) for name, value in best.items()}
        | {
            "account_updates_per_s": round(ACCOUNTS_CHANGED / best["root"]),
            "blocks": BLOCKS,
            "transfers": TRANSFERS,
            "accounts": ACCOUNTS,
        }
    )


def append_block(
    replica: Replica,
    genesis: Genesis,
    accounts: dict[bytes, Account],
    source: random.Random,
    seconds: dict[str, list[float]],
) -> None:
    """Make a block that leaves these accounts behind, and add it."""
    head = replica.head()
    difference = StateDifference.from_changes({address: AccountChange(one) for address, one in accounts.items()})
    senders = list(accounts)[:TRANSFERS]
    transactions = TransactionColumns.from_transactions([transfer(head.number, source) for _ in senders], senders)
    receipts = ReceiptColumns.from_rows([(2, True, 21_000, ())] * TRANSFERS)
    outcome = ExecutionOutcome(np.arange(TRANSFERS, dtype="<u4"), (), receipts, difference, 21_000 * TRANSFERS, 0)
    header = head.block.header
    context = next_context(header, genesis.config, (), timestamp=header.timestamp, coinbase=senders[0])
    state = replica.state(head.number)
    timed(seconds["root"], lambda: state.root_after(difference))
    sealed = timed(seconds["seal"], lambda: make_block(head, context, transactions, outcome, state))
    timed(seconds["append"], lambda: replica.append(sealed, receipts, difference))


def transfer(nonce: int, source: random.Random) -> Transaction:
    """A transfer whose signature nobody checks here."""
    r, s = source.getrandbits(250) + 1, source.getrandbits(250) + 1
    return Transaction(
        TransactionType.FEE_MARKET, 1337, nonce, 21_000, 10**10, 1, source.randbytes(20), 5, b"", 0, r, s
    )


def timed(seconds: list[float], action: Callable[[], _Result]) -> _Result:
    started = time.perf_counter()
    result = action()
    seconds.append(time.perf_counter() - started)
    return result


def record(figures: dict[str, float | int]) -> None:
    """Append one JSON line with commit and device, and print it."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
    line = json.dumps(
        {
            "bench": "store",
            "commit": commit.stdout.strip(),
            "device": platform.processor() or platform.machine(),
            **figures,
        }
    )
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / "store.jsonl").open("a") as results:
        results.write(line + "\n")
    print(line)  # noqa: T201 - a benchmark's output


if __name__ == "__main__":
    main()
