"""Kills processes of a real local network at random instants while transactions and jobs flow, and audits the end.

    python -m tests.integration.crash_soak --kills 50 --seed 1

What was acknowledged must be there, exactly once; balances must add up, account by account and in all; every job must
have been answered within its deadline, by another worker where its own was killed, and paid once. The seed fixes who is
killed after which delay; it is printed first, and with every failure.
"""

import argparse
import contextlib
import os
import random
import secrets
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from core.genesis import load_genesis
from core.jobs.request import JobRequest, Message, Role, Sampling
from core.signature import attach_signature
from core.transaction import Transaction, TransactionType, encode_transaction, signing_hash, transaction_hash
from market.contracts import JOB_ESCROW
from node.accounts import DEVELOPMENT_BALANCE_WEI, development_accounts
from node.client import RpcClient
from node.errors import ServiceError
from node.jobs.network import JobNetwork
from node.jobs.submit import open_submission, submit_job
from node.keys import IdentityKey
from node.testnet import layout, processes
from node.testnet.genesis import testnet_genesis
from protos.job_messages import JobQuery, JobRecord

__all__ = ["CrashSoak", "main"]

TRANSFER_GAS = 21_000
MAX_FEE_WEI = 100 * 10**9
SETTLE_TIMEOUT_S = 240.0
START_TIMEOUT_S = 120.0
_RETRY_S = 0.2
_KILLS_AMID_JOBS = 0.7  # the others come at any instant
_JOB_TIMEOUT_S = 30.0
_ENDED = frozenset({"settled", "refunded"})


@dataclass
class Ledger:
    """What was acknowledged. `transfers` maps a transaction's hash to its recipient (used once) and value."""

    transfers: dict[bytes, tuple[bytes, int]] = field(default_factory=dict)
    jobs: dict[bytes, bytes] = field(default_factory=dict)
    unanswered: dict[bytes, tuple[bytes, int]] = field(
        default_factory=dict
    )  # sent last, and perhaps taken all the same


class CrashSoak:
    """One run over one network. `kills` processes of each kind are killed; an error says what was lost."""

    def __init__(self, folder: Path, seed: int, kills: int, base_port: int, report: Callable[[str], None]) -> None:
        self.random = random.Random(seed)
        self.kills = kills
        self.report = report
        wanted = layout.Testnet(folder, 2, base_port, "smollm2", "cpu")
        self.network = layout.prepare(wanted, testnet_genesis, fresh=False)
        self.rpc = RpcClient(self.network.rpc_url)
        self.ledger = Ledger()
        self.stopping = threading.Event()
        self.failures: list[str] = []

    def run(self) -> None:
        """Start, load, kill, wait, audit. Raises AssertionError naming what is wrong."""
        for member in self.network.members():
            processes.start(member)
        try:
            self._wait(
                lambda: len(self.rpc.call("warpgrid_models")) > 0, START_TIMEOUT_S, "the network to serve a model"
            )
            senders = [threading.Thread(target=self._transfers, args=(index,)) for index in (1, 2)]
            askers = [threading.Thread(target=self._ask, args=(index,)) for index in (3, 4, 5)]
            for thread in [*senders, *askers]:
                thread.start()
            self._kill_all()
            self.stopping.set()
            for thread in [*senders, *askers]:
                thread.join()
            self._audit()
        finally:
            self.stopping.set()
            processes.stop(self.network.members())
        assert not self.failures, "\n".join(self.failures)

    def _kill_all(self) -> None:
        victims = ["sequencer"] * self.kills + ["worker-1", "worker-2"] * ((self.kills + 1) // 2)
        self.random.shuffle(victims)
        members = {member.name: member for member in self.network.members()}
        for count, name in enumerate(victims, 1):
            self._wait(self._serves_a_model, START_TIMEOUT_S, "a worker to serve a model")  # or no job would ever run
            if self.random.random() < _KILLS_AMID_JOBS:
                self._wait_for_jobs()
            self.stopping.wait(self.random.uniform(0.0, 3.0))
            pid = processes.running_pid(members[name])
            if pid is None:
                tail = "\n".join(list(processes.tail(members[name], follow=False))[-40:])
                raise AssertionError(f"{name} is not running: it ended by itself. The end of its log:\n{tail}")
            os.kill(pid, signal.SIGKILL)
            self._wait(lambda: processes.running_pid(members[name]) is None, 10, "the killed process to be gone")  # noqa: B023
            processes.start(members[name])
            self.report(
                f"kill {count}/{len(victims)}: {name}; acknowledged {len(self.ledger.transfers)} transfers, "
                f"{len(self.ledger.jobs)} jobs"
            )

    def _wait_for_jobs(self) -> None:
        """Until another job was acknowledged, or none could be for a while: funding one takes a few blocks."""
        known = len(self.ledger.jobs)
        deadline = time.monotonic() + _JOB_TIMEOUT_S
        while len(self.ledger.jobs) == known and time.monotonic() < deadline:
            self.stopping.wait(_RETRY_S / 10)

    def _serves_a_model(self) -> bool:
        return len(self.rpc.call("warpgrid_models")) > 0

    def _wait(self, holds: Callable[[], bool], timeout_s: float, what: str) -> None:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            with contextlib.suppress(ServiceError):
                if holds():
                    return
            threading.Event().wait(_RETRY_S)
        raise AssertionError(f"waited {timeout_s:.0f} s for {what}")

    def _transfers(self, account: int) -> None:
        """One transfer after the other from one account, each to a fresh address, each sent until acknowledged."""
        identity = IdentityKey(development_accounts()[account].secret_key)
        nonce = 0
        while not self.stopping.is_set():
            recipient, value = secrets.token_bytes(20), 1 + nonce
            tx = Transaction(
                type=TransactionType.FEE_MARKET,
                chain_id=layout.CHAIN_ID,
                nonce=nonce,
                gas_limit=TRANSFER_GAS,
                max_fee_per_gas=MAX_FEE_WEI,
                max_priority_fee_per_gas=1,
                to=recipient,
                value=value,
                data=b"",
                y_parity=0,
                r=0,
                s=0,
            )
            signed = attach_signature(tx, identity.sign(signing_hash(tx)))
            if self._acknowledged(encode_transaction(signed)):
                self.ledger.transfers[transaction_hash(signed)] = (recipient, value)
                nonce += 1
            else:
                self.ledger.unanswered[transaction_hash(signed)] = (recipient, value)

    def _acknowledged(self, raw: bytes) -> bool:
        """Send until the sequencer has it. The same bytes again are harmless: they are one transaction."""
        while True:
            try:
                self.rpc.call("eth_sendRawTransaction", "0x" + raw.hex())
                return True
            except ServiceError as error:
                if "already known" in str(error) or "nonce too low" in str(error):
                    return True  # an earlier try of these very bytes arrived
                if self.stopping.is_set():
                    return False
                threading.Event().wait(_RETRY_S)

    def _ask(self, account: int) -> None:
        identity = IdentityKey(development_accounts()[account].secret_key)
        request = JobRequest("smollm2", (Message(Role.USER, "Say a word."),), Sampling(tokens_max=4))
        while not self.stopping.is_set():
            with contextlib.suppress(ServiceError), open_submission(JobNetwork.local(self.network), identity) as to:
                for job, event in submit_job(to, request, 10**15, 60, lambda _: None):
                    self.ledger.jobs[job.job_id] = job.salt  # its first event acknowledged it
                    if event.receipt is not None or event.state in ("failed", "cancelled"):
                        break
            self.stopping.wait(_RETRY_S)

    def _audit(self) -> None:
        self._wait(self._nothing_waits, SETTLE_TIMEOUT_S, "every acknowledged transfer to be mined")
        spent: dict[str, int] = {}
        for digest, (recipient, value) in {**self.ledger.transfers, **self.ledger.unanswered}.items():
            receipt = self.rpc.call("eth_getTransactionReceipt", "0x" + digest.hex())
            if receipt is None and digest in self.ledger.unanswered:
                continue
            balance = int(self.rpc.call("eth_getBalance", "0x" + recipient.hex(), "latest"), 16)
            if receipt["status"] != "0x1" or balance != value:
                self.failures.append(f"transfer 0x{digest.hex()}: status {receipt['status']}, {balance} of {value} wei")
            fee = int(receipt["gasUsed"], 16) * int(receipt["effectiveGasPrice"], 16)
            spent[receipt["from"]] = spent.get(receipt["from"], 0) + fee + value
        for sender, total in spent.items():
            balance = int(self.rpc.call("eth_getBalance", sender, "latest"), 16)
            if balance + total != DEVELOPMENT_BALANCE_WEI:
                self.failures.append(f"{sender}: {balance} wei left, {total} spent, {DEVELOPMENT_BALANCE_WEI} given")
        self._audit_chain()
        self._audit_jobs()
        self._audit_supply()

    def _nothing_waits(self) -> bool:
        return all(
            self.rpc.call("eth_getTransactionReceipt", "0x" + digest.hex()) is not None
            for digest in self.ledger.transfers
        )

    def _audit_chain(self) -> None:
        """Parent hashes link, and no transaction stands in two blocks."""
        seen: set[str] = set()
        parent = self.rpc.call("eth_getBlockByNumber", "0x0", False)["hash"]
        for number in range(1, int(self.rpc.call("eth_blockNumber"), 16) + 1):
            block = self.rpc.call("eth_getBlockByNumber", hex(number), False)
            if block["parentHash"] != parent:
                self.failures.append(f"block {number} does not follow block {number - 1}")
            parent = block["hash"]
            twice = seen & set(block["transactions"])
            if twice:
                self.failures.append(f"block {number} holds again: {', '.join(twice)}")
            seen |= set(block["transactions"])

    def _audit_jobs(self) -> None:
        with JobNetwork.local(self.network).coordinator() as coordinator:

            def records() -> list[JobRecord]:
                return [coordinator.status(JobQuery(one, salt)) for one, salt in self.ledger.jobs.items()]

            self._wait(
                lambda: {one.state for one in records()} <= _ENDED,
                SETTLE_TIMEOUT_S,
                "every job to be settled or refunded",
            )
            ended = records()
        payments = self._payments()
        for one in ended:
            name = f"job 0x{one.job_id.hex()} (attempt {one.attempt}, {one.state})"
            if one.receipt is None or one.state != "settled":
                self.failures.append(f"{name} was not answered: {one.detail}")
                continue
            if one.receipt.receipt.finished_at_ms > one.deadline_ms:
                self.failures.append(f"{name} was answered after its deadline")
            paid = sum(one.job_id in payment for payment in payments)
            if paid != 1:
                self.failures.append(f"{name} was settled {paid} times")
        again = sum(one.attempt > 1 for one in ended)
        self.report(f"jobs: {len(ended)} settled or refunded, {again} of them by another attempt than the first")

    def _payments(self) -> list[bytes]:
        """What the transactions that settled batches said of their payments."""
        committed = JOB_ESCROW.event_topic("BatchCommitted")
        logs = self.rpc.call("eth_getLogs", {"fromBlock": "earliest", "topics": ["0x" + committed.hex()]})
        sent = [self.rpc.call("eth_getTransactionByHash", log["transactionHash"])["input"] for log in logs]
        return [JOB_ESCROW.decode_call(bytes.fromhex(data[2:]))[1]["payments"] for data in sent]

    def _audit_supply(self) -> None:
        """Of the genesis' wei nothing is missing but the burned base fees, and nothing came into being."""
        genesis = load_genesis(self.network.data_dir / "genesis.json")
        head = int(self.rpc.call("eth_blockNumber"), 16)
        founders = dict(genesis.difference.changes())
        burned, holders = 0, {"0x" + address.hex() for address in founders}
        for number in range(1, head + 1):
            block = self.rpc.call("eth_getBlockByNumber", hex(number), True)
            burned += int(block["baseFeePerGas"], 16) * int(block["gasUsed"], 16)
            holders |= {block["miner"], *(tx["to"] for tx in block["transactions"] if tx["to"])}
        given = sum(change.account.balance for change in founders.values() if change.account)
        held = sum(int(self.rpc.call("eth_getBalance", one, hex(head)), 16) for one in holders)
        if held + burned != given:
            self.failures.append(f"{given} wei were given, {held} are held and {burned} were burned")
        self.report(f"supply: {given} wei = {held} held + {burned} burned, {len(holders)} accounts, {head} blocks")


def main() -> int:
    """Run from the command line; ends with a line that says how it went."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="kills of the sequencer, and as many of workers")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--base-port", type=int, default=28_545)
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)  # noqa: T201
    with tempfile.TemporaryDirectory() as folder:
        soak = CrashSoak(
            Path(folder),
            arguments.seed,
            arguments.kills,
            arguments.base_port,
            lambda line: print(line, flush=True),  # noqa: T201
        )
        soak.run()
        transfers, jobs = len(soak.ledger.transfers), len(soak.ledger.jobs)
    print(f"passed: {2 * arguments.kills} kills, {transfers} transfers and {jobs} jobs accounted for")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
