"""Exact jobs disputed on a running chain, over JSON-RPC: a cheat is found and pays, an honest worker is defended.

Everything is real: a sequencer process, the contracts at their places, an exact model on disk. The client is its own
coordinator, so that no market has to run beside. Whoever waits, waits for the chain's next block.
"""

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from coincurve import PrivateKey
from websockets.sync.client import ClientConnection, connect

from core.genesis import dev_genesis
from core.jobs.exact import ExactTerms, prompt_prefix
from core.jobs.receipt import Receipt, ReceiptDomain, sign_receipt
from core.jobs.request import JobRequest, Message, Role, Sampling, Tier, encode_tokens, output_hash, request_hash
from market.batches import Batch
from market.contracts import (
    ARBITER,
    ARBITER_ADDRESS,
    ESCROW_ADDRESS,
    JOB_ESCROW,
    REGISTRY_ADDRESS,
    WORKER_REGISTRY,
    EscrowStatus,
    MarketParameters,
)
from market.contracts import predeploys as market_predeploys
from node.client import RpcClient
from node.disputes.challenge import Showing, accepted, challenge_job, dispute_of, prepare, show_receipt
from node.disputes.defence import DefenceState, Defender
from node.disputes.game import RpcGame, game_id, play_seat
from node.disputes.prosecution import LadderProsecutor
from node.errors import ServiceError, ServiceUnreachable
from node.jobs.records import ClientJob, JobRecords
from node.keys import IdentityKey
from node.registration import ensure_registered
from node.wallet import Wallet
from protos.job_messages import AssignJob, SignedReceipt
from sequencer.coordinator.disputes import Case
from tests.integration.local_sequencer import CHAIN_ID, RunningSequencer, running_sequencer
from tests.unit.worker.inference.exact_models import write_model
from worker.inference.dispute_parties import DisputeParties
from worker.inference.exact.model import ExactModel
from worker.inference.exact.ordering import exact_terms, model_hash, sampling_of, sampling_words
from worker.inference.exact.specification import exp2_table, sigmoid_table
from worker.inference.exact.tokenizer import ChatTokenizer
from worker.job_files import JobFiles
from zk.contracts import predeploys as dispute_predeploys
from zk.dispute import Challenger, Terms, Turn, Worker
from zk.tape import Tape
from zk.trace import Statement, Trace

ETHER = 10**18
MOVE_SECONDS = 12  # on a loaded machine too, an honest party is never late
PRICE_MAX_WEI = 10**15
BOND_WEI = 10**17
SALT = b"\x05" * 32
PARAMETERS = MarketParameters(
    stake_min_wei=ETHER,
    challenge_seconds=1,
    exact_challenge_seconds=120,
    settlement_seconds=600,
    unbonding_seconds=3600,
    bond_wei=BOND_WEI,
)


class RandomlyWrong(Challenger):
    """Challenges what is right."""

    def choice(self, nodes: list[bytes]) -> int:
        return len(nodes) // 3


class Heads:
    """The chain's blocks as they are made."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._socket.send(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "eth_subscribe", "params": ["newHeads"]}))
        assert "result" in json.loads(self._socket.recv(timeout=30))

    def wait(self, seconds: float = 0.0) -> None:
        """Until the next block, however long a party wants to think."""
        self._socket.recv(timeout=60)

    def until(self, holds: Callable[[], object]) -> None:
        """Look again after each block."""
        while not holds():
            self.wait()


@contextmanager
def heads_of(url: str) -> Iterator[Heads]:
    """A subscription to the chain behind a WebSocket."""
    with connect(url) as socket:
        yield Heads(socket)


class FailingRpc(RpcClient):
    """A service of which one call in twenty fails, before or after it was done."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._random = random.Random(71)
        self.failures = 0

    def call(self, method: str, *params: Any) -> Any:
        fails = self._random.random() < 0.05
        answer = None if fails and self._random.random() < 0.5 else super().call(method, *params)
        if fails:
            self.failures += 1
            raise ServiceUnreachable("the service has gone away, again")
        return answer


class Chain:
    """A sequencer with the contracts, and three accounts with money: client, worker, and a challenger."""

    def __init__(self, running: RunningSequencer, keys: list[IdentityKey], model: ExactModel, models_dir: Path) -> None:
        url, self.web_socket_url = running.url, running.web_socket_url
        self.rpc, self.model, self.models_dir = RpcClient(url), model, models_dir
        self.keys = keys
        self.client, self.worker, self.challenger = (Wallet(key, RpcClient(url)) for key in keys)
        self.worker_key = keys[1]
        self.parties = DisputeParties(model)
        self._nonce = 0
        ensure_registered(self.worker, keys[1], CHAIN_ID, b"a public key", b"\x06" * 32)
        address = self.worker.address  # a slash must not take the worker below the least stake
        self.worker.transact(WORKER_REGISTRY, REGISTRY_ADDRESS, "addStake", address, value_wei=ETHER)

    def ordered(self) -> tuple[ClientJob, Statement]:
        """A job that the client paid for, and the statement of its order."""
        self._nonce += 1
        sampling = Sampling(5, temperature_milli=900, top_p_milli=800, top_k=40, seed=self._nonce)
        request = JobRequest("bytes", (Message(Role.USER, "What?"),), sampling, Tier.EXACT)
        terms: ExactTerms = exact_terms(self.model, request, SALT)
        request = replace(request, exact=terms)
        asked = request_hash(request, SALT)
        name = model_hash(self.model.root, self.model.header)
        order = (self.client.address, bytes(20), 1, int(time.time()) + 300, PRICE_MAX_WEI, name, asked, self._nonce)
        self.client.transact(JOB_ESCROW, ESCROW_ADDRESS, "open", order, value_wei=PRICE_MAX_WEI)
        job_id = self.client.read(JOB_ESCROW, ESCROW_ADDRESS, "jobIdOf", self.client.address, self._nonce)
        tokenizer = ChatTokenizer(self.model.tokenizer, self.model.chat_template)
        prompt = tuple(tokenizer.encode_chat(request.messages))
        words = sampling_words(sampling_of(sampling, self.model.header.vocabulary))
        statement = Statement(self.model.root, asked, words, prompt, (0,), prompt_prefix(SALT))
        return ClientJob(job_id, request, SALT, PRICE_MAX_WEI, 0), self.parties.answer(statement, 5)

    def settled(self, job: ClientJob, statement: Statement, trace_root: bytes) -> None:
        """The worker signs for this trace, and the client settles with the whole receipt on chain."""
        signed = self.signed(job, statement, trace_root)
        arguments = ([signed.receipt.solidity()], [signed.signature])
        self.client.transact(JOB_ESCROW, ESCROW_ADDRESS, "settle", *arguments)

    def batched(self, job: ClientJob, statement: Statement, trace_root: bytes) -> ClientJob:
        """The worker signs for this trace, and the client settles by the root; what it then knows."""
        signed = self.signed(job, statement, trace_root)
        batch = Batch.of(ReceiptDomain(CHAIN_ID, ESCROW_ADDRESS), [signed.receipt])
        arguments = (int(Tier.EXACT), batch.root, batch.payments)
        self.client.transact(JOB_ESCROW, ESCROW_ADDRESS, "settleBatch", *arguments)
        number = self.client.read(JOB_ESCROW, ESCROW_ADDRESS, "jobOf", job.job_id)[8]
        return replace(job, signed=signed, inclusion=batch.inclusion(number, job.job_id))

    def signed(self, job: ClientJob, statement: Statement, trace_root: bytes) -> SignedReceipt:
        now_ms = time.time_ns() // 1_000_000
        receipt = Receipt(
            job_id=job.job_id,
            worker=self.worker.address,
            tier=Tier.EXACT,
            model_hash=model_hash(self.model.root, self.model.header),
            request_hash=statement.request_hash,
            output_hash=output_hash("whatever it says", SALT),
            trace_root=trace_root,
            input_tokens=len(statement.prompt),
            output_tokens=len(statement.answer),
            started_at_ms=now_ms,
            finished_at_ms=now_ms,
            input_token_wei=1,
            output_token_wei=1,
            total_wei=len(statement.tokens),
        )
        domain = ReceiptDomain(CHAIN_ID, ESCROW_ADDRESS)
        return SignedReceipt(receipt, sign_receipt(receipt, domain, PrivateKey(self.worker_key.secret)))

    def lie(self, statement: Statement) -> tuple[Trace, Worker]:
        """A trace with one wrong digest, and whoever committed to it and forces its tapes to end there."""
        trace, rows = self.parties.run(statement)
        leaves = trace.leaves.copy()
        leaves[7 * trace.shape.leaves + 3, 0] ^= 1
        lie = Trace(trace.shape, statement, leaves)
        honest = self.parties.tapes(statement, rows)

        def lying(position: int, inner: int) -> Tape:
            tape = honest(position, inner)
            return Tape(tape.size, {**tape.cells, tape.size - 1: lie.digest(position, inner)})

        return lie, self.parties.committed_worker(lie, rows, lying)

    def play_liar(self, job: ClientJob, terms: Terms, liar: Worker) -> "Background":
        """The liar's side of the game, from when it is challenged until the contract refuses its proof."""
        refused: list[str] = []

        def play() -> None:
            with heads_of(self.web_socket_url) as heads:
                heads.until(lambda: self.worker.read(JOB_ESCROW, ESCROW_ADDRESS, "jobOf", job.job_id)[6])
                try:
                    play_seat(RpcGame(self.rpc, self.worker, terms), terms, liar, heads.wait)
                except ServiceError as error:
                    refused.append(str(error))

        return Background(in_background(play), refused)

    def status(self, job: ClientJob) -> int:
        return int(self.client.read(JOB_ESCROW, ESCROW_ADDRESS, "jobOf", job.job_id)[3])

    def credit(self, owner: bytes, contract: Any, address: bytes) -> int:
        return int(self.client.read(contract, address, "creditWei", owner))

    def stake(self) -> int:
        return int(self.client.read(WORKER_REGISTRY, REGISTRY_ADDRESS, "workerOf", self.worker.address)[0])


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    folder = tmp_path_factory.mktemp("dispute")
    models_dir = folder / "models"
    models_dir.mkdir()
    model = write_model(folder / "model", 5)
    model.directory.rename(models_dir / model.root.hex())
    model = ExactModel(models_dir / model.root.hex())
    keys = [IdentityKey.load_or_create(folder / name) for name in ("client", "worker", "challenger")]
    predeploys = market_predeploys(PARAMETERS)
    predeploys |= dispute_predeploys(exp2_table().tolist(), sigmoid_table().tolist(), MOVE_SECONDS)
    balances = dict.fromkeys([key.address for key in keys], 100 * ETHER)
    genesis = folder / "genesis.json"
    genesis.write_text(json.dumps(dev_genesis(CHAIN_ID, balances, predeploys, timestamp=int(time.time()) - 60)))
    with running_sequencer(folder / "chain", 50, genesis_file=genesis, executor="cpu") as running:
        yield Chain(running, keys, model, models_dir)


@pytest.fixture
def heads(chain: Chain) -> Iterator[Heads]:
    with heads_of(chain.web_socket_url) as one:
        yield one


class Background(NamedTuple):
    """A thread, and what the contract refused it."""

    thread: threading.Thread
    refused: list[str]


def in_background(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def assert_cheat_paid(chain: Chain, job: ClientJob, stake: int, before: tuple[int, int]) -> None:
    """`before`: what client and challenger had."""
    assert chain.status(job) == EscrowStatus.REJECTED
    assert chain.stake() == stake - 10 * PRICE_MAX_WEI
    assert chain.credit(chain.client.address, JOB_ESCROW, ESCROW_ADDRESS) == before[0] + PRICE_MAX_WEI
    challenger = chain.challenger.address
    assert chain.credit(challenger, WORKER_REGISTRY, REGISTRY_ADDRESS) == before[1] + 5 * PRICE_MAX_WEI


def credits_of(chain: Chain) -> tuple[int, int]:
    client, challenger = chain.client.address, chain.challenger.address
    return (
        chain.credit(client, JOB_ESCROW, ESCROW_ADDRESS),
        chain.credit(challenger, WORKER_REGISTRY, REGISTRY_ADDRESS),
    )


def test_a_cheat_is_disputed_and_pays(chain: Chain) -> None:
    job, statement = chain.ordered()
    lie, liar = chain.lie(statement)
    before = credits_of(chain)  # what opening the next job spends is not in it
    chain.settled(job, statement, lie.root)
    terms = prepare(chain.rpc, chain.challenger, job, chain.models_dir).terms
    stake, told = chain.stake(), list[str]()
    defending = chain.play_liar(job, terms, liar)
    assert challenge_job(chain.rpc, chain.challenger, job, chain.models_dir, told.append)
    defending.thread.join(timeout=60)
    assert "CellNotProven" in defending.refused[0]
    assert_cheat_paid(chain, job, stake, before)
    assert chain.credit(chain.challenger.address, ARBITER, ARBITER_ADDRESS) >= BOND_WEI
    assert [line.split()[0] for line in told[-2:]] == ["pick", "timeout"]


def test_the_coordinator_disputes_what_it_settled_by_its_root(chain: Chain, heads: Heads) -> None:
    """As `sequencer.coordinator.disputes` has it done: decided before it is settled, played after."""
    prosecutor = LadderProsecutor(chain.rpc, chain.challenger, [chain.model])
    job, statement = chain.ordered()
    lie, liar = chain.lie(statement)
    honest = chain.parties.run(statement)[0]
    right = Case(job.job_id, job.request, SALT, chain.signed(job, statement, honest.root))
    assert not prosecutor.would_win(right)
    wrong = replace(right, signed=chain.signed(job, statement, lie.root))
    assert prosecutor.would_win(wrong)
    poor = Wallet(IdentityKey(b"\x77" * 32), chain.rpc)
    assert not LadderProsecutor(chain.rpc, poor, [chain.model]).would_win(wrong)
    assert not LadderProsecutor(chain.rpc, chain.challenger, []).would_win(wrong)

    before = credits_of(chain)
    settled = chain.batched(job, statement, lie.root)
    assert settled.signed is not None
    case = Case(job.job_id, job.request, SALT, settled.signed, settled.inclusion)
    terms = dispute_of(settled, settled.signed.receipt, chain.model, chain.challenger.address).terms
    stake = chain.stake()
    defending = chain.play_liar(job, terms, liar)
    while (has_lost := prosecutor.advance(case)) is None:
        heads.wait()
    assert has_lost
    defending.thread.join(timeout=60)
    assert "CellNotProven" in defending.refused[0]
    assert_cheat_paid(chain, job, stake, before)
    assert prosecutor.advance(case), "again, as after a crash: it knows how it ended"


def warpgrid(chain: Chain, folder: Path, account: int, command: str, job: ClientJob, *options: str) -> Any:
    """A `warpgrid job` command in a process of its own, with the key of an account and a home of its own."""
    key = folder / f"key-{account}"
    key.write_text(chain.keys[account].secret.hex() + "\n")
    key.chmod(0o600)
    named = ["--rpc", chain.rpc.url, "--grpc", "127.0.0.1:1", "--key-file", str(key)]
    program = str(Path(sys.executable).with_name("warpgrid"))
    called = [program, "job", command, "0x" + job.job_id.hex(), *named, *options]
    home = {**os.environ, "HOME": str(folder)}
    return subprocess.run(called, capture_output=True, text=True, timeout=120, env=home)


def test_job_dispute_from_the_command_line(chain: Chain, tmp_path: Path) -> None:
    """`warpgrid job dispute` in a process of its own, with nothing but the client's file of the job."""
    job, statement = chain.ordered()
    lie, liar = chain.lie(statement)
    before = credits_of(chain)
    known = chain.batched(job, statement, lie.root)
    JobRecords(tmp_path / ".warpgrid" / "jobs").save(known)
    terms = prepare(chain.rpc, chain.challenger, known, chain.models_dir).terms
    stake = chain.stake()
    defending = chain.play_liar(job, terms, liar)
    models = ("--models-dir", str(chain.models_dir))
    done = warpgrid(chain, tmp_path, 2, "dispute", job, *models)
    assert done.returncode == 0, done.stderr
    assert "where the receipt was settled is not asked" in done.stderr
    assert "showed the receipt" in done.stderr
    assert "the receipt was wrong: it is rejected" in done.stderr
    defending.thread.join(timeout=60)
    assert_cheat_paid(chain, job, stake, before)
    again = warpgrid(chain, tmp_path, 2, "dispute", job, *models)
    assert (again.returncode, again.stdout) == (0, "")
    assert "challenged" not in again.stderr, "it has ended, and is not begun again"
    assert_cheat_paid(chain, job, stake, before)


def test_a_client_demands_the_receipt_behind_a_payment(chain: Chain, tmp_path: Path) -> None:
    job, statement = chain.ordered()
    settled = chain.batched(job, statement, chain.parties.run(statement)[0].root)
    assert warpgrid(chain, tmp_path, 2, "demand", job).returncode != 0, "it is the client's to demand"
    done = warpgrid(chain, tmp_path, 0, "demand", job)
    assert done.returncode == 0, done.stderr
    assert chain.status(job) == EscrowStatus.DEMANDED
    again = warpgrid(chain, tmp_path, 0, "demand", job)
    assert again.returncode != 0
    assert "demanded already" in again.stderr
    assert settled.signed is not None
    assert settled.inclusion is not None
    show_receipt(chain.worker, Showing(settled.signed, settled.inclusion.proof), lambda line: None)
    assert chain.status(job) == EscrowStatus.SETTLING


def test_who_stalls_in_one_game_does_not_make_the_worker_late_in_another(chain: Chain, tmp_path: Path) -> None:
    job, statement = chain.ordered()
    chain.settled(job, statement, chain.parties.run(statement)[0].root)
    files, name = JobFiles(tmp_path), model_hash(chain.model.root, chain.model.header)
    answer = encode_tokens(statement.answer)
    files.keep(AssignJob(job.job_id, 1, job.request, SALT, name, 0, 1, 1, PRICE_MAX_WEI, False, answer))
    defender = Defender(chain.rpc, chain.worker, files, {name: chain.model})
    defender.step()  # what was before is over
    games = []
    for wallet in (chain.challenger, chain.client):
        receipt, terms = accepted(chain.rpc, wallet, job, chain.model)
        arguments = (terms.solidity(), receipt.solidity())
        wallet.transact(ARBITER, ARBITER_ADDRESS, "challenge", *arguments, value_wei=BOND_WEI)
        games.append(RpcGame(chain.rpc, wallet, terms))
    assert defender.step() == 2
    assert [game.turn() for game in games] == [Turn.PICKS, Turn.PICKS], "neither challenger has moved yet"


@pytest.mark.parametrize("service", [RpcClient, FailingRpc])
def test_an_honest_worker_is_defended(chain: Chain, heads: Heads, tmp_path: Path, service: type[RpcClient]) -> None:
    job, statement = chain.ordered()
    trace, rows = chain.parties.run(statement)
    chain.settled(job, statement, trace.root)
    with pytest.raises(ServiceError, match="the receipt is right"):
        challenge_job(chain.rpc, chain.challenger, job, chain.models_dir, lambda line: None)
    files = JobFiles(tmp_path)
    name = model_hash(chain.model.root, chain.model.header)
    answer = encode_tokens(statement.answer)
    files.keep(AssignJob(job.job_id, 1, job.request, SALT, name, 0, 1, 1, PRICE_MAX_WEI, False, answer))
    rpc = service(chain.rpc.url)
    waited = iter(range(10**6))  # each failure is tried again at once: the clock leaps
    defender = Defender(rpc, Wallet(chain.worker_key, rpc), files, {name: chain.model}, lambda: 60.0 * next(waited))
    receipt, terms = accepted(chain.rpc, chain.challenger, job, chain.model)
    arguments = (terms.solidity(), receipt.solidity())
    chain.challenger.transact(ARBITER, ARBITER_ADDRESS, "challenge", *arguments, value_wei=BOND_WEI)
    stake, earned = chain.stake(), chain.credit(chain.worker.address, ARBITER, ARBITER_ADDRESS)
    malicious = RandomlyWrong(terms, trace, chain.parties.opener, chain.parties.tapes(statement, rows))
    game = RpcGame(chain.rpc, chain.challenger, terms)

    def challenge() -> None:
        with heads_of(chain.web_socket_url) as others:
            play_seat(game, terms, malicious, others.wait)

    playing = in_background(challenge)
    defence = None
    while defence is None or defence.state in (DefenceState.PLAYING, DefenceState.WAITING):
        try:
            defender.step()
            heads.wait()
        except ServiceUnreachable:  # while it looked for challenges: it looks again
            assert service is FailingRpc
        defence = defender.defences.get(game_id(terms))
    playing.join(timeout=60)
    assert (defence.state, game.winner()) == (DefenceState.WON, chain.worker.address)
    assert chain.stake() == stake
    assert chain.credit(chain.worker.address, ARBITER, ARBITER_ADDRESS) == earned + BOND_WEI // 2
    assert chain.status(job) == EscrowStatus.SETTLING, "it is paid once its window is over"
    assert not isinstance(rpc, FailingRpc) or rpc.failures > 3
