"""What the method modules work with, passed in by whoever composes a node."""

from dataclasses import dataclass, field

from core.chain import ChainReader
from core.execution import Executor
from sequencer.block_hashes import BlockHashes
from sequencer.feed import Feed
from sequencer.mempool import Admission, Mempool
from sequencer.ports import Clock
from sequencer.production import NewHead
from sequencer.rpc_methods.chain_view import ChainView

__all__ = ["MethodLimits", "Services"]


@dataclass(frozen=True, slots=True)
class MethodLimits:
    """What one call may ask for."""

    call_gas_max: int = 50_000_000
    log_records_max: int = 20_000
    log_blocks_max: int = 100_000
    log_addresses_max: int = 1_000
    topic_values_max: int = 1_000
    proof_keys_max: int = 1_024
    storage_slots_max: int = 1_024
    fee_history_blocks_max: int = 1_024
    reward_percentiles_max: int = 100
    struct_logs_max: int = 200_000
    simulated_blocks_max: int = 256
    filters_max: int = 1_024
    filter_lifetime_s: float = 300.0
    receipt_wait_max_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Services:
    """The chain, its executor, its mempool and the door to it, and the limits; `heads` announces new blocks.

    `states_kept` is how many recent states the chain answers for, 0 meaning all.
    """

    chain: ChainReader
    executor: Executor
    mempool: Mempool
    admission: Admission
    heads: Feed[NewHead]
    clock: Clock
    client_version: str
    limits: MethodLimits = field(default_factory=MethodLimits)
    states_kept: int = 0
    view: ChainView = field(init=False)
    hashes: BlockHashes = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "view", ChainView(self.chain))
        object.__setattr__(self, "hashes", BlockHashes(self.chain))
