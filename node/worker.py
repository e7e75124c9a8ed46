"""The worker role, put together: keys, replica, executor, models, and the stream to the sequencer.

Wires and runs; decides nothing. Stops on SIGTERM and SIGINT after finishing what it runs.
"""

import asyncio
import signal
from contextlib import ExitStack

import structlog
from prometheus_client import CollectorRegistry, Gauge

from core.genesis import load_genesis
from market.contracts import ESCROW_ADDRESS
from node.client import RpcClient, parse_address
from node.config import WorkerConfig
from node.errors import ServiceUnreachable
from node.executors import make_executor
from node.keys import IdentityKey, SequencerPin, WorkerTls
from node.metrics import serving
from node.models import engine_device, load_model
from node.paths import chain_dir, identity_file, keys_dir
from node.registration import ensure_registered, public_key_der
from node.wallet import Wallet
from worker.jobs import JobsConfig, OfferedModel
from worker.joining import open_replica
from worker.rpc import DialerConfig, GrpcDialer
from worker.service import DUTY_REPLICA, DUTY_WATCHER, Worker, WorkerSettings

__all__ = ["run_worker"]

_REGISTRATION_RETRY_S = 2.0

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
        loading = starting.create_task(_offered(config))
        states_kept = config.states_kept or None
        opening = starting.create_task(
            open_replica(chain_dir(config.data_dir), genesis, dialer, states_kept=states_kept)
        )
    chain, models = opening.result(), loading.result()
    resources.callback(chain.close)
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
    loop = asyncio.get_running_loop()
    for one in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(one, worker.stop)
    _log.info("worker started", address=identity.address.hex(), head=chain.head().number, models=len(models))
    async with asyncio.TaskGroup() as group:
        working = group.create_task(worker.run())
        if models:
            public_key = public_key_der(tls.key_pem)
            joining = group.create_task(_register(config.rpc_url, identity, chain.config.chain_id, public_key))
            working.add_done_callback(lambda _: joining.cancel())


async def _offered(config: WorkerConfig) -> list[OfferedModel]:
    if not config.model:
        return []
    loaded = await load_model(config.model, config.engine_threads, engine_device(config.engine_device))
    prices = (config.price_per_token_wei, config.price_per_token_wei)
    return [OfferedModel(loaded.engine, *prices, loaded.opener)]


async def _register(rpc_url: str, identity: IdentityKey, chain_id: int, public_key: bytes) -> None:
    """Stake, once the chain can be asked. Raises ServiceError when the account cannot pay: the worker ends then."""
    wallet = Wallet(identity, RpcClient(rpc_url))
    while True:
        try:
            return await asyncio.to_thread(ensure_registered, wallet, identity, chain_id, public_key)
        except ServiceUnreachable as error:
            _log.warning("registration waits", reason=str(error))
            await asyncio.sleep(_REGISTRATION_RETRY_S)
