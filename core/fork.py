"""Which rules a block is executed under. Knows the order of forks and their blob parameters, not their semantics."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from core.errors import GenesisError

__all__ = ["BLOB_PARAMETERS", "BlobParameters", "ChainConfig", "Fork"]


class Fork(IntEnum):
    """Ethereum mainnet's forks that change execution, in order of activation."""

    FRONTIER = 0
    HOMESTEAD = 1
    DAO_FORK = 2
    TANGERINE_WHISTLE = 3
    SPURIOUS_DRAGON = 4
    BYZANTIUM = 5
    CONSTANTINOPLE = 6
    ISTANBUL = 7
    MUIR_GLACIER = 8
    BERLIN = 9
    LONDON = 10
    ARROW_GLACIER = 11
    GRAY_GLACIER = 12
    PARIS = 13
    SHANGHAI = 14
    CANCUN = 15
    PRAGUE = 16
    OSAKA = 17
    BPO1 = 18
    BPO2 = 19


@dataclass(frozen=True, slots=True)
class BlobParameters:
    """EIP-7840: blobs a block should and may carry, and how fast their fee moves."""

    target_blobs: int
    max_blobs: int
    base_fee_update_fraction: int


BLOB_PARAMETERS: Mapping[Fork, BlobParameters] = {
    Fork.CANCUN: BlobParameters(3, 6, 3_338_477),
    Fork.PRAGUE: BlobParameters(6, 9, 5_007_716),
    Fork.OSAKA: BlobParameters(6, 9, 5_007_716),
    Fork.BPO1: BlobParameters(10, 15, 8_346_193),
    Fork.BPO2: BlobParameters(14, 21, 11_684_671),
}

# geth's names in genesis.json's "config", for the forks that activate at a block number and at a timestamp.
_BLOCK_FORKS = {
    "homesteadBlock": Fork.HOMESTEAD,
    "daoForkBlock": Fork.DAO_FORK,
    "eip150Block": Fork.TANGERINE_WHISTLE,
    "eip155Block": Fork.SPURIOUS_DRAGON,
    "eip158Block": Fork.SPURIOUS_DRAGON,
    "byzantiumBlock": Fork.BYZANTIUM,
    "constantinopleBlock": Fork.CONSTANTINOPLE,
    "petersburgBlock": Fork.CONSTANTINOPLE,
    "istanbulBlock": Fork.ISTANBUL,
    "muirGlacierBlock": Fork.MUIR_GLACIER,
    "berlinBlock": Fork.BERLIN,
    "londonBlock": Fork.LONDON,
    "arrowGlacierBlock": Fork.ARROW_GLACIER,
    "grayGlacierBlock": Fork.GRAY_GLACIER,
    "mergeNetsplitBlock": Fork.PARIS,
}
_TIME_FORKS = {
    "shanghaiTime": Fork.SHANGHAI,
    "cancunTime": Fork.CANCUN,
    "pragueTime": Fork.PRAGUE,
    "osakaTime": Fork.OSAKA,
    "bpo1Time": Fork.BPO1,
    "bpo2Time": Fork.BPO2,
}


@dataclass(frozen=True, slots=True)
class ChainConfig:
    """A chain's id and its fork schedule.

    `block_forks` and `time_forks` are (activation, fork) pairs in ascending order; `raw` is the genesis file's own
    "config" object, kept for clients that ask for it.
    """

    chain_id: int
    block_forks: tuple[tuple[int, Fork], ...]
    time_forks: tuple[tuple[int, Fork], ...]
    raw: Mapping[str, Any]

    @classmethod
    def from_geth(cls, config: Mapping[str, Any]) -> "ChainConfig":
        """Read the "config" object of a genesis file in geth's format.

        Raises GenesisError for a missing chain id, an activation that is not a number, or forks out of order.
        """
        chain_id = config.get("chainId")
        if not isinstance(chain_id, int) or not 0 < chain_id < 2**64:
            raise GenesisError(f"config.chainId must be a number in [1, 2^64), not {chain_id!r}")
        block_forks = _schedule(config, _BLOCK_FORKS)
        if config.get("terminalTotalDifficulty") == 0 and all(fork < Fork.PARIS for _, fork in block_forks):
            block_forks = (*block_forks, (0, Fork.PARIS))
        time_forks = _schedule(config, _TIME_FORKS)
        for schedule in (block_forks, time_forks):
            if [at for at, _ in schedule] != sorted(at for at, _ in schedule):
                raise GenesisError(f"forks must activate in order; the schedule is {schedule}")
        return cls(chain_id, block_forks, time_forks, dict(config))

    def fork_at(self, number: int, timestamp: int) -> Fork:
        """The fork that rules the block of this number and timestamp (seconds)."""
        active = Fork.FRONTIER
        for at, fork in self.block_forks:
            if number >= at:
                active = max(active, fork)
        for at, fork in self.time_forks:
            if timestamp >= at:
                active = max(active, fork)
        return active


def _schedule(config: Mapping[str, Any], names: Mapping[str, Fork]) -> tuple[tuple[int, Fork], ...]:
    activations: dict[Fork, int] = {}
    for name, fork in names.items():
        at = config.get(name)
        if at is None:
            continue
        if not isinstance(at, int) or at < 0:
            raise GenesisError(f"config.{name} must be a non-negative number, not {at!r}")
        # Two names may stand for one fork (EIP-155 and EIP-158; Constantinople and Petersburg): the earlier one counts.
        # A chain that had Constantinople's EIP-1283 for a while, before Petersburg took it back, is not served exactly.
        activations[fork] = min(at, activations.get(fork, at))
    return tuple(sorted(((at, fork) for fork, at in activations.items()), key=lambda pair: pair[1]))
