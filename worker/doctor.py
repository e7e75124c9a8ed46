"""Finds out why a worker would not work, and says how to mend it: keys, disk, GPU, model, sequencer, clock, chain.

Every check gives one finding, whatever goes wrong in it; `report` turns them into what a program reads. Nothing is
changed. Knows nothing of configuration files: what to look at is given.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from core.errors import WarpgridError
from protos.messages import BlockReference, Description, Gpu
from worker.capabilities import probe_gpus, probe_machine

__all__ = ["Doctor", "DoctorSettings", "Finding", "SequencerProbe", "Severity", "report"]

_GIB = 2**30
_HOPPER = 90
DISK_FREE_BYTES_WANTED = 20 * _GIB
DISK_FREE_BYTES_MIN = _GIB
CLOCK_OFFSET_MS_WANTED = 500
CLOCK_OFFSET_MS_MAX = 60_000
BLOCKS_BEHIND_WANTED = 16

assert DISK_FREE_BYTES_MIN < DISK_FREE_BYTES_WANTED
assert CLOCK_OFFSET_MS_WANTED < CLOCK_OFFSET_MS_MAX


class Severity(StrEnum):
    """FAIL keeps a worker from working; WARN will sooner or later."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found. `mend` says what to do; empty when all is well."""

    check: str
    severity: Severity
    detail: str
    mend: str = ""


class SequencerProbe(Protocol):
    """Asks the sequencer about itself (`worker.rpc.GrpcDialer`)."""

    async def describe(self) -> Description: ...


@dataclass(frozen=True, slots=True)
class DoctorSettings:
    """`executor` is reference, cpu or gpu; `model_file` None when no model is served; `sequencer` is its host:port."""

    data_dir: Path
    executor: str
    sequencer: str
    chain_id: int
    genesis_hash: bytes
    model_file: Path | None = None


class Doctor:
    """Examines one worker's surroundings.

    `load_address` loads the identity key and gives its address; `own_head` gives the newest block of the replica on
    disk, None when there is none yet. Both raise WarpgridError when something is wrong. The machine's part may be given
    in tests.
    """

    def __init__(
        self,
        settings: DoctorSettings,
        probe: SequencerProbe,
        *,
        load_address: Callable[[], bytes],
        own_head: Callable[[], BlockReference | None],
        now_ms: Callable[[], int],
        find_gpus: Callable[[], tuple[Gpu, ...]] = probe_gpus,
    ) -> None:
        self._settings = settings
        self._probe = probe
        self._load_address = load_address
        self._own_head = own_head
        self._now_ms = now_ms
        self._find_gpus = find_gpus

    async def examine(self) -> list[Finding]:
        """Every finding, in the order in which one would mend them."""
        findings = [
            await _guarded("keys", self._keys, "remove the file that is named, or correct its mode; it is made anew"),
            await _guarded("disk", self._disk, "choose another data directory with --data-dir"),
            await _guarded("gpu", self._gpu, "install the NVIDIA driver, or use --executor cpu"),
            await _guarded("model", self._model, "give the path of a GGUF file with --model"),
        ]
        try:
            description = await self._probe.describe()
        except WarpgridError as error:
            mend = f"check that a sequencer runs at {self._settings.sequencer} and that no firewall is in between"
            return [*findings, Finding("sequencer", Severity.FAIL, str(error), mend)]
        return [
            *findings,
            self._sequencer(description),
            self._clock(description),
            await _guarded("chain", lambda: self._chain(description), "remove the replica's folder to start anew"),
        ]

    async def _keys(self) -> Finding:
        address = await asyncio.to_thread(self._load_address)
        return Finding("keys", Severity.OK, f"this worker is 0x{address.hex()}")

    async def _disk(self) -> Finding:
        machine = await asyncio.to_thread(probe_machine, self._settings.data_dir)
        free = machine.disk_free_bytes
        detail = f"{free // _GIB} GiB free in {self._settings.data_dir}"
        if free < DISK_FREE_BYTES_MIN:
            return Finding("disk", Severity.FAIL, detail, f"free at least {DISK_FREE_BYTES_MIN // _GIB} GiB there")
        if free < DISK_FREE_BYTES_WANTED:
            return Finding(
                "disk", Severity.WARN, detail, f"free {DISK_FREE_BYTES_WANTED // _GIB} GiB before it fills up"
            )
        return Finding("disk", Severity.OK, detail)

    async def _gpu(self) -> Finding:
        gpus = await asyncio.to_thread(self._find_gpus)
        if gpus:
            names = ", ".join(f"{one.name} ({one.memory_bytes // _GIB} GiB, driver {one.driver})" for one in gpus)
            exact = "the GPU" if gpus[0].compute_capability == _HOPPER else "the CPU: their kernels need Hopper (sm_90)"
            return Finding("gpu", Severity.OK, f"{names}; exact models run on {exact}")
        if self._settings.executor == "gpu":
            detail = "the executor is `gpu`, but the driver shows no NVIDIA GPU"
            return Finding(
                "gpu", Severity.FAIL, detail, "run `nvidia-smi`; install the NVIDIA driver, or use --executor cpu"
            )
        return Finding("gpu", Severity.OK, "no NVIDIA GPU; the CPU does the work")

    async def _model(self) -> Finding:
        path = self._settings.model_file
        if path is None:
            return Finding("model", Severity.OK, "no model is served: this worker executes blocks only")
        files = [path, *path.rglob("*")] if path.is_dir() else [path]
        size = sum(one.stat().st_size for one in files if one.is_file())
        if not size:
            mend = "give --model the path of a GGUF file or of an exact model's directory"
            return Finding("model", Severity.FAIL, f"there is no model at {path}", mend)
        machine = probe_machine(self._settings.data_dir)
        if size > machine.memory_bytes:
            detail = f"{path.name} needs {size // _GIB} GiB, the machine has {machine.memory_bytes // _GIB}"
            return Finding("model", Severity.FAIL, detail, "choose a smaller model or a stronger quantisation")
        return Finding("model", Severity.OK, f"{path.name}, {size // 2**20} MiB")

    def _sequencer(self, description: Description) -> Finding:
        settings = self._settings
        if (description.chain_id, description.genesis_hash) != (settings.chain_id, settings.genesis_hash):
            detail = (
                f"{settings.sequencer} has chain {description.chain_id} with genesis "
                f"0x{description.genesis_hash.hex()}, this worker chain {settings.chain_id} with "
                f"0x{settings.genesis_hash.hex()}"
            )
            return Finding("sequencer", Severity.FAIL, detail, "use the genesis file of that network")
        detail = f"{settings.sequencer} is at block {description.head.number}, {description.workers} workers attached"
        return Finding("sequencer", Severity.OK, detail)

    def _clock(self, description: Description) -> Finding:
        offset_ms = description.at_ms - self._now_ms()
        detail = f"the sequencer's clock is {abs(offset_ms)} ms {'ahead' if offset_ms > 0 else 'behind'}"
        mend = "synchronise the clock, for example with `timedatectl set-ntp true`"
        if abs(offset_ms) > CLOCK_OFFSET_MS_MAX:
            return Finding("clock", Severity.FAIL, detail + ": receipts would be refused", mend)
        if abs(offset_ms) > CLOCK_OFFSET_MS_WANTED:
            return Finding("clock", Severity.WARN, detail, mend)
        return Finding("clock", Severity.OK, detail)

    async def _chain(self, description: Description) -> Finding:
        head = await asyncio.to_thread(self._own_head)
        if head is None:
            return Finding("chain", Severity.OK, "no blocks yet; the worker catches up when it starts")
        behind = description.head.number - head.number
        detail = f"at block {head.number}, {max(behind, 0)} behind the sequencer"
        if behind < 0 or (behind == 0 and head.hash != description.head.hash):
            return Finding(
                "chain",
                Severity.FAIL,
                f"this replica's block {head.number} is not the sequencer's chain",
                "remove the replica's folder to start anew; keep a copy if you think that the sequencer is wrong",
            )
        if behind > BLOCKS_BEHIND_WANTED:
            return Finding("chain", Severity.WARN, detail, "start the worker and wait until it has caught up")
        return Finding("chain", Severity.OK, detail)


async def _guarded(check: str, examine: Callable[[], Awaitable[Finding]], mend: str) -> Finding:
    """The check's finding; an error in it is one too."""
    try:
        return await examine()
    except (WarpgridError, OSError) as error:
        return Finding(check, Severity.FAIL, str(error), mend)


def report(findings: Sequence[Finding]) -> dict[str, Any]:
    """The findings as a JSON object: `healthy`, and `findings` with check, severity, detail and mend."""
    return {
        "healthy": all(one.severity != Severity.FAIL for one in findings),
        "findings": [asdict(one) for one in findings],
    }
