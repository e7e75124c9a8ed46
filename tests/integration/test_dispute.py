"""Exact jobs disputed on a running chain, over JSON-RPC: a cheat is found and pays, an honest worker is defended.

Everything is real: a sequencer process, the contracts at their places, an exact model on disk. The jobs are direct ones
(the client is its own coordinator), so that no market has to run beside.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from coincurve import PrivateKey

from core.genesis import dev_genesis
from core.jobs.exact import ExactTerms, prompt_prefix
from core.jobs.receipt import Receipt, ReceiptDomain, sign_receipt
from core.jobs.request import JobRequest, Message, Role, Sampling, Tier, encode_tokens, output_hash, request_hash
from market.contracts import (
    ARBITER,
    ARBITER_ADDRESS,
    ESCROW_ADDRESS,
    JOB_ESCROW,
    REGISTRY_ADDRESS,
    WORKER_REGISTRY,
    MarketParameters,
)
from market.contracts import predeploys as market_predeploys
from node.client import RpcClient
from node.disputes.challenge import accepted, challenge_job, prepare
from node.disputes.defence import Defender
from node.disputes.game import RpcGame, play_seat
from node.errors import ServiceError
from node.jobs.records import ClientJob
from node.keys import IdentityKey
from node.registration import ensure_registered
from node.wallet import Wallet
from protos.messages import AssignJob
from tests.integration.local_sequencer import CHAIN_ID, running_sequencer
from tests.unit.worker.inference.exact_models import write_model
from worker.inference.dispute_parties import DisputeParties
from worker.inference.exact.model import ExactModel
from worker.inference.exact.ordering import exact_terms, model_hash, sampling_of, sampling_words
from worker.inference.exact.specification import exp2_table, sigmoid_table
from worker.inference.exact.tokenizer import ChatTokenizer
from worker.job_files import JobFiles
from zk.contracts import predeploys as dispute_predeploys
from zk.dispute import Challenger, Worker
from zk.tape import Tape
from zk.trace import Statement, Trace

ETHER = 10**18
MOVE_SECONDS = 4
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


class Chain:
    """A sequencer with the contracts, and three accounts with money: client, worker, and a challenger."""

    def __init__(self, url: str, keys: list[IdentityKey], model: ExactModel, models_dir: Path) -> None:
        self.rpc, self.model, self.models_dir = RpcClient(url), model, models_dir
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
        """The worker signs for this trace, and the client settles."""
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
        signature = sign_receipt(receipt, ReceiptDomain(CHAIN_ID, ESCROW_ADDRESS), PrivateKey(self.worker_key.secret))
        self.client.transact(JOB_ESCROW, ESCROW_ADDRESS, "settle", [receipt.solidity()], [signature])

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
        yield Chain(running.url, keys, model, models_dir)


def in_background(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_a_cheat_is_disputed_and_pays(chain: Chain) -> None:
    job, statement = chain.ordered()
    trace, rows = chain.parties.run(statement)
    leaves = trace.leaves.copy()
    leaves[7 * trace.shape.leaves + 3, 0] ^= 1
    lie = Trace(trace.shape, statement, leaves)
    honest = chain.parties.tapes(statement, rows)

    def lying(position: int, inner: int) -> Tape:
        tape = honest(position, inner)
        return Tape(tape.size, {**tape.cells, tape.size - 1: lie.digest(position, inner)})

    chain.settled(job, statement, lie.root)
    terms = prepare(chain.rpc, chain.challenger, job, chain.models_dir).terms
    liar: Worker = chain.parties.committed_worker(lie, rows, lying)
    refused: list[ServiceError] = []

    def defend() -> None:
        try:
            while chain.client.read(JOB_ESCROW, ESCROW_ADDRESS, "jobOf", job.job_id)[6] == 0:
                threading.Event().wait(0.05)  # until it is challenged
            play_seat(RpcGame(chain.rpc, chain.worker, terms), terms, liar)
        except ServiceError as error:
            refused.append(error)

    stake = chain.stake()
    defending = in_background(defend)
    told: list[str] = []
    assert challenge_job(chain.rpc, chain.challenger, job, chain.models_dir, told.append)
    defending.join(timeout=60)
    assert "CellNotProven" in str(refused[0])
    assert chain.status(job) == 6, "rejected"
    assert chain.stake() == stake - 10 * PRICE_MAX_WEI
    assert chain.credit(chain.client.address, JOB_ESCROW, ESCROW_ADDRESS) == PRICE_MAX_WEI
    assert chain.credit(chain.challenger.address, WORKER_REGISTRY, REGISTRY_ADDRESS) == 5 * PRICE_MAX_WEI
    assert chain.credit(chain.challenger.address, ARBITER, ARBITER_ADDRESS) == BOND_WEI
    assert [line.split()[0] for line in told[-2:]] == ["pick", "timeout"]


def test_an_honest_worker_is_defended(chain: Chain, tmp_path: Path) -> None:
    job, statement = chain.ordered()
    trace, rows = chain.parties.run(statement)
    chain.settled(job, statement, trace.root)
    with pytest.raises(ServiceError, match="the receipt is right"):
        challenge_job(chain.rpc, chain.challenger, job, chain.models_dir, lambda line: None)
    files = JobFiles(tmp_path)
    name = model_hash(chain.model.root, chain.model.header)
    answer = encode_tokens(statement.answer)
    files.keep(AssignJob(job.job_id, 1, job.request, SALT, name, 0, 1, 1, PRICE_MAX_WEI, False, answer))
    defender = Defender(chain.rpc, chain.worker, files, {name: chain.model})
    defender.step(lambda seconds: None)  # what was before is over

    receipt, terms = accepted(chain.rpc, chain.challenger, job, chain.model)
    arguments = (terms.solidity(), receipt.solidity())
    chain.challenger.transact(ARBITER, ARBITER_ADDRESS, "challenge", *arguments, value_wei=BOND_WEI)
    stake = chain.stake()
    malicious = RandomlyWrong(terms, trace, chain.parties.opener, chain.parties.tapes(statement, rows))
    game = RpcGame(chain.rpc, chain.challenger, terms)
    playing = in_background(lambda: play_seat(game, terms, malicious))
    assert defender.step(lambda seconds: time.sleep(seconds / 10)) == 1
    playing.join(timeout=60)
    assert game.winner() == chain.worker.address
    assert chain.stake() == stake
    assert chain.credit(chain.worker.address, ARBITER, ARBITER_ADDRESS) == BOND_WEI // 2
    assert chain.status(job) == 2, "it is paid once its window is over"
