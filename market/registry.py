"""Who can work right now: what workers announced, whether they are alive, and how reliable they have proven.

A record of facts, kept by whoever assigns jobs. The stake is the chain's (`market.contracts`), copied here. Picks
nobody (`market.matching`) and reads no clock: every call says what time it is.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from core import rlp
from core.hashing import keccak256
from market.errors import DirectoryFull
from protos.messages import Capabilities, Model

__all__ = ["SILENCE_MS_MAX", "WORKERS_MAX", "Reliability", "Worker", "WorkerDirectory", "capabilities_hash"]

WORKERS_MAX = 10_000
SILENCE_MS_MAX = 15_000

_OUTCOME_MILLI = 1000
_DECAY_PERMILLE = 980
_PRIOR_MILLI = 1000


@dataclass(frozen=True, slots=True)
class Reliability:
    """A decayed tally of verified outcomes, in thousandths of an outcome.

    Each outcome fades by 2 % with every later one, so a worker is as good as its last fifty jobs.
    """

    kept_milli: int = 0
    broken_milli: int = 0

    def after(self, *, kept: bool, weight: int = 1) -> "Reliability":
        """The tally after a job that was answered in time and found right, or was not. `weight` counts it so often."""
        kept_milli = self.kept_milli * _DECAY_PERMILLE // 1000
        broken_milli = self.broken_milli * _DECAY_PERMILLE // 1000
        if kept:
            return Reliability(kept_milli + weight * _OUTCOME_MILLI, broken_milli)
        return Reliability(kept_milli, broken_milli + weight * _OUTCOME_MILLI)

    @property
    def permille(self) -> int:
        """The expected share of kept jobs. A newcomer has 500: it gets work, and has to earn more."""
        total = self.kept_milli + self.broken_milli + 2 * _PRIOR_MILLI
        return (self.kept_milli + _PRIOR_MILLI) * 1000 // total


@dataclass(frozen=True, slots=True)
class Worker:
    """What is known of one worker. `address` is the account that staked; times are Unix milliseconds."""

    address: bytes
    capabilities: Capabilities
    heard_at_ms: int
    stake_wei: int = 0
    jobs_running: int = 0
    reliability: Reliability = Reliability()
    leaving: bool = False

    def is_live(self, now_ms: int) -> bool:
        """Whether it was heard lately and takes new jobs."""
        return not self.leaving and now_ms - self.heard_at_ms <= SILENCE_MS_MAX

    @property
    def free_slots(self) -> int:
        return max(0, self.capabilities.job_slots - self.jobs_running)


class WorkerDirectory:
    """The known workers. At most WORKERS_MAX: silent ones make room for new ones, live ones do not."""

    def __init__(self, workers_max: int = WORKERS_MAX) -> None:
        self._workers_max = workers_max
        self._workers: dict[bytes, Worker] = {}

    def __len__(self) -> int:
        return len(self._workers)

    def __iter__(self) -> Iterator[Worker]:
        """In order of address, so that every decision can be repeated."""
        return iter(sorted(self._workers.values(), key=lambda worker: worker.address))

    def worker(self, address: bytes) -> Worker | None:
        return self._workers.get(address)

    def announce(self, address: bytes, capabilities: Capabilities, *, stake_wei: int, now_ms: int) -> Worker:
        """A worker registered, perhaps anew: its reliability stays, its jobs do not.

        Raises DirectoryFull when there is no room and nobody is silent.
        """
        known = self._workers.get(address)
        if known is None and len(self._workers) >= self._workers_max:
            self._make_room(now_ms)
        reliability = known.reliability if known else Reliability()
        worker = Worker(address, capabilities, now_ms, stake_wei, reliability=reliability)
        self._workers[address] = worker
        return worker

    def heartbeat(self, address: bytes, *, jobs_running: int, now_ms: int) -> None:
        """A worker is alive. One that never announced itself is not a worker, and nothing is noted."""
        self._change(address, heard_at_ms=now_ms, jobs_running=jobs_running)

    def leave(self, address: bytes) -> None:
        """A worker takes no more jobs."""
        self._change(address, leaving=True)

    def stake(self, address: bytes, stake_wei: int) -> None:
        """The chain says what a worker has at stake."""
        self._change(address, stake_wei=stake_wei)

    def assigned(self, address: bytes) -> None:
        """A worker was given a job: it counts as running until its next heartbeat says what is."""
        known = self._workers.get(address)
        if known:
            self._change(address, jobs_running=known.jobs_running + 1)

    def outcome(self, address: bytes, *, kept: bool, weight: int = 1) -> None:
        """A job of this worker ended, and whether it kept its word is a verified fact."""
        known = self._workers.get(address)
        if known:
            self._change(address, reliability=known.reliability.after(kept=kept, weight=weight))

    def _change(self, address: bytes, **changes: object) -> None:
        known = self._workers.get(address)
        if known:
            self._workers[address] = replace(known, **changes)  # type: ignore[arg-type]

    def _make_room(self, now_ms: int) -> None:
        longest_silent = min(self._workers.values(), key=lambda worker: (worker.heard_at_ms, worker.address))
        if now_ms - longest_silent.heard_at_ms <= SILENCE_MS_MAX:
            raise DirectoryFull(f"{self._workers_max} workers are known and alive: no more are taken")
        del self._workers[longest_silent.address]


def capabilities_hash(models: Sequence[Model]) -> bytes:
    """What a worker commits to in the contract: the models that it serves, with tiers and asked prices."""
    rows: list[rlp.Item] = [
        [
            model.name.encode(),
            model.model_hash,
            rlp.encode_int(model.tier),
            rlp.encode_int(model.input_token_wei),
            rlp.encode_int(model.output_token_wei),
            rlp.encode_int(model.context_tokens_max),
        ]
        for model in sorted(models, key=lambda one: (one.model_hash, one.tier))
    ]
    return keccak256(rlp.encode([b"warpgrid capabilities 1", rows]))
