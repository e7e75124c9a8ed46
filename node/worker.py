"""The worker role, put together: keys, replica, executor, models, and the stream to the sequencer.

Wires and runs; decides nothing. Stops on SIGTERM and SIGINT after finishing what it runs.
"""

import asyncio
import signal
import time
from contextlib import ExitStack
from functools import partial

import structlog
from prometheus_client import CollectorRegistry, Gauge

from core.genesis import load_genesis
from core.hashing import keccak256
from market.contracts import ESCROW_ADDRESS
from node.client import RpcClient, parse_address
from node.config import WorkerConfig
from node.disputes.defence import DefenceState, Defender, defend
from node.errors import ServiceUnreachable
from node.executors import make_executor
from node.keys import IdentityKey, SequencerPin, WorkerTls
from node.metrics import serving
from node.models import LoadedModel, engine_device, load_model
from node.paths import chain_dir, identity_file, keys_dir
from node.registration import ensure_registered, public_key_der
from node.wallet import Wallet
from protos.rpc import encode
from worker.job_files import JobFiles
from worker.jobs import JobsConfig, OfferedModel
from worker.joining import open_replica
from worker.rpc import DialerConfig, GrpcDialer
from worker.service import DUTY_REPLICA, DUTY_WATCHER, Worker, WorkerSettings

__all__ = ["run_worker"]

_REGISTRATION_RETRY_S = 2.0
_KEEP_ANSWERS_S = 7 * 24 * 3600.0  # longer than any challenge window

_log = structlog.get_logger(__name__)


def run_worker(config: WorkerConfig) -> None:
    """Run until a signal. Raises WarpgridError when it cannot start or may not join."""
    registry = CollectorRegistry()
    with serving(registry, config.metrics_port), ExitStack() as resources:
        asyncio.run(_run(config, registry, resources))


async def _run(config: WorkerConfig, registry: CollectorRegistry, resources: ExitStack) -> None:
    host, port = parse_address(config.sequencer)
    config.data_dir.mkdir(parents=True, exist_ok=True)
    identity = IdentityKey.load_or_create(identity_file(config.data_dir))
    tls = WorkerTls.load_or_create(keys_dir(config.data_dir))
    sequencer = SequencerPin(keys_dir(config.data_dir) / "sequencer.crt", config.sequencer_fingerprint)
    genesis = load_genesis(config.genesis)
    dialer = GrpcDialer(DialerConfig(host, port), genesis.config.chain_id, identity, tls, sequencer)
    async with asyncio.TaskGroup() as starting:  # a model is read and verified while the replica waits for the network
        loading = starting.create_task(_loaded(config))
        states_kept = config.states_kept or None
        opening = starting.create_task(
            open_replica(chain_dir(config.data_dir), genesis, dialer, states_kept=states_kept)
        )
    chain, loaded = opening.result(), loading.result()
    resources.callback(chain.close)
    wallet = Wallet(identity, RpcClient(config.rpc_url))
    defenders = [_defender(config, wallet, one) for one in loaded if one.exact is not None]
    prices = (config.price_per_token_wei, config.price_per_token_wei)
    models = [OfferedModel(one.engine, *prices, one.opener) for one in loaded]
    worker = Worker(
        WorkerSettings(
            config.data_dir,
            DialerConfig(host, port),
            ESCROW_ADDRESS,
            duty=DUTY_WATCHER if config.duty == "watcher" else DUTY_REPLICA,
            jobs=JobsConfig(config.jobs_max),
        ),
        chain,
        make_executor(config.executor),
        identity,
        tls,
        sequencer,
        models,
    )
    head = Gauge("warpgrid_head_number", "Number of the newest block", registry=registry)
    head.set_function(lambda: worker.replica.head.number)
    running = Gauge("warpgrid_jobs_running", "Jobs in progress", registry=registry)
    running.set_function(lambda: worker.jobs.running)
    games = Gauge("warpgrid_disputes", "Disputes about this worker's answers, by state", ["state"], registry=registry)
    for state in DefenceState:
        counted = partial(_count_defences, defenders, state)
        games.labels(state=state.value).set_function(counted)
    loop = asyncio.get_running_loop()
    for one in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(one, worker.stop)
    _log.info("worker started", address=identity.address.hex(), head=chain.head().number, models=len(models))
    async with asyncio.TaskGroup() as group:
        working = group.create_task(worker.run())
        if models:
            public_key = public_key_der(tls.key_pem)
            capabilities_hash = keccak256(encode(worker.capabilities()))
            membership = (wallet, identity, chain.config.chain_id, public_key, capabilities_hash)
            beside = [group.create_task(_register(*membership))]
            beside += [group.create_task(defend(one)) for one in defenders]
            working.add_done_callback(lambda _: [one.cancel() for one in beside])


async def _loaded(config: WorkerConfig) -> list[LoadedModel]:
    if not config.model:
        return []
    return [await load_model(config.model, config.engine_threads, engine_device(config.engine_device))]


def _defender(config: WorkerConfig, wallet: Wallet, loaded: LoadedModel) -> Defender:
    """Who answers challenges of this model's answers, from what was kept of them."""
    assert loaded.exact is not None, "only exact answers can be challenged"
    files = JobFiles(config.data_dir / "jobs")
    files.drop_kept(time.time() - _KEEP_ANSWERS_S)
    return Defender(RpcClient(config.rpc_url), wallet, files, {loaded.engine.model.model_hash: loaded.exact})


def _count_defences(defenders: list[Defender], state: DefenceState) -> int:
    return sum(one.count(state) for one in defenders)


async def _register(
    wallet: Wallet, identity: IdentityKey, chain_id: int, public_key: bytes, capabilities_hash: bytes
) -> None:
    """Stake, once the chain can be asked. Raises ServiceError when the account cannot pay: the worker ends then."""
    membership = (wallet, identity, chain_id, public_key, capabilities_hash)
    while True:
        try:
            return await asyncio.to_thread(ensure_registered, *membership)
        except ServiceUnreachable as error:
            _log.warning("registration waits", reason=str(error))
            await asyncio.sleep(_REGISTRATION_RETRY_S)
