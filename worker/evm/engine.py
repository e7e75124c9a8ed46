"""The engine as a library: batches in, outcomes out.

`Engine.run` is *instances mode*: many independent transactions, each on the base state alone. `Engine.run_block` is
*serial mode*: one block, each transaction on what the one before left. Both answer what a transaction lacks (state that
the base does not hold, precompiles that the back end does not compute) through one `Resolver`, and run it again.
"""

import ctypes
import struct
from os import cpu_count
from typing import Protocol

import numpy as np

from core.columns import Array
from worker.evm import library
from worker.evm.base_state import BaseState, pointer
from worker.evm.batch import Batch, Outcomes
from worker.evm.errors import EngineLimit
from worker.evm.layouts import REQUEST, RESULT, ArenaSizes, RequestKind, Status
from worker.evm.trace_stream import TraceStream

__all__ = ["Engine", "NothingMissing", "Resolver"]

_GIB = 1 << 30
_REQUEST = struct.Struct("<32s20sI")  # the fields of REQUEST that an answer needs
assert REQUEST.names is not None
assert REQUEST.names[:3] == ("key", "address", "kind")

# Address space, not memory: pages are taken from the system as a transaction touches them.
CPU_ARENAS = ArenaSizes(
    stack_words=1025 * 1026,
    memory_bytes=8 * _GIB,
    return_bytes=_GIB,
    accounts=1 << 21,
    slots=1 << 22,
    index_entries=1 << 24,
    journal_entries=1 << 24,
    log_bytes=_GIB,
    frames=1026,
    region_bytes=2 * _GIB,
    codes=1 << 18,
)
PRECOMPILE_MEMO_ENTRIES = 256
OUTPUT_BYTES = 16 * _GIB
_NO_ARENA = np.zeros(0, "u1")
OUTPUT_BYTES_KEPT = 256 << 20  # beyond this, memory goes back to the system after a run


class Resolver(Protocol):
    """Answers what parked transactions ask for."""

    def resolve(self, base: BaseState, batch: Batch, outcomes: Outcomes, rows: list[int]) -> None:
        """Add to `base` what the requests of these rows name. Each must make progress, or the run would never end."""

    def answer(self, base: BaseState, kind: RequestKind, address: bytes, key: bytes) -> None:
        """Add to `base` one account, or one of its slots (`key`: 32 little-endian bytes), which a running transaction
        of world 0 waits for."""


class NothingMissing:
    """The resolver for a base that holds everything."""

    def resolve(self, base: BaseState, batch: Batch, outcomes: Outcomes, rows: list[int]) -> None:
        request = outcomes.results["request"][rows[0]]
        raise AssertionError(f"the base is complete, yet transaction {rows[0]} asks for {request}")

    def answer(self, base: BaseState, kind: RequestKind, address: bytes, key: bytes) -> None:
        raise AssertionError(f"the base is complete, yet a transaction asks for {kind.name} of 0x{address.hex()}")


class _Answers:
    """A resolver as the native side calls it in the middle of a transaction. Keeps what the resolver raised."""

    def __init__(self, resolver: Resolver, base: BaseState) -> None:
        self._resolver, self._base = resolver, base
        self._raised: BaseException | None = None
        self.native = library.Answer(self._answer)

    def _answer(self, request: "ctypes._Pointer[ctypes.c_uint8]") -> int:
        key, address, kind = _REQUEST.unpack(ctypes.string_at(request, _REQUEST.size))
        try:
            self._resolver.answer(self._base, RequestKind(kind), address, key)
        except BaseException as error:  # noqa: BLE001 - a process edge to native code; `check` raises
            self._raised = error
            return 0
        return 1

    def check(self) -> None:
        """Raise what the resolver raised."""
        if self._raised is not None:
            raise self._raised


class Engine:
    """The EVM on this machine's cores. Not to be shared between threads: it has one set of arenas.

    `threads` is how many cores instances mode uses (default: all). Each remembers up to `memo_entries` answers of dear
    precompiles (a power of two, or 0), found by their whole input.
    """

    name = "cpu"

    def __init__(self, threads: int | None = None, *, memo_entries: int = PRECOMPILE_MEMO_ENTRIES) -> None:
        assert memo_entries & (memo_entries - 1) == 0
        self._library = library.load()
        self._session = self._library.warpgrid_evm_session_create(
            ctypes.byref(CPU_ARENAS), threads or cpu_count() or 1, OUTPUT_BYTES, memo_entries
        )
        if not self._session:
            raise EngineLimit("the system gives no address space for the EVM's arenas: raise `ulimit -v`")
        self._used = 0

    def __del__(self) -> None:
        if session := self.__dict__.pop("_session", None):
            self._library.warpgrid_evm_session_destroy(session)

    def run(self, base: BaseState, batch: Batch, resolver: Resolver | None = None) -> Outcomes:
        """Run every row on the base alone; the base stays as it is, but for what the resolver adds.

        Raises EngineLimit when a transaction needs more memory than there is address space.
        """
        resolver = resolver or NothingMissing()
        native, results = batch.native(), np.zeros(len(batch), RESULT)
        self._clear()
        rows = np.arange(len(batch), dtype="<u4")
        while len(rows):
            self._library.warpgrid_evm_run_instances(
                self._session,
                base.handle,
                base.accounts_complete,
                base.single_step,
                ctypes.byref(native),
                pointer(rows),
                len(rows),
                pointer(results),
            )
            self._refuse_overflow(results)
            outcomes = self._outcomes(results)
            rows = np.flatnonzero(results["status"] == Status.PARKED).astype("<u4")
            if len(rows):
                resolver.resolve(base, batch, outcomes, rows.tolist())
        return self._outcomes(results)

    def run_block(self, base: BaseState, batch: Batch, block: Array, resolver: Resolver | None = None) -> Outcomes:
        """Run the rows in order in one block; the base becomes the state after them.

        `block` is a BLOCK_ENVIRONMENT[1] of the caller's: the gas and blob gas it has available are taken off.
        """
        resolver = resolver or NothingMissing()
        count, native = len(batch), batch.native()
        results, answers = np.zeros(count, RESULT), _Answers(resolver, base)
        self._clear()
        row = 0
        while row < count:
            row = self._library.warpgrid_evm_run_serial(
                self._session,
                base.handle,
                base.accounts_complete,
                ctypes.byref(native),
                row,
                pointer(block),
                pointer(results),
                answers.native,
            )
            answers.check()
            self._refuse_overflow(results)
            if row < count:
                resolver.resolve(base, batch, self._outcomes(results), [row])
        return self._outcomes(results)

    def trace_row(
        self,
        base: BaseState,
        batch: Batch,
        row: int,
        block: Array,
        stream: TraceStream,
        resolver: Resolver | None = None,
    ) -> Outcomes:
        """As `run_block` for row `row` alone, told step by step in `stream`; the other rows of the outcomes are empty.

        The base must be a `single_step` one.
        """
        assert base.single_step
        resolver = resolver or NothingMissing()
        native, results, answers = batch.native(), np.zeros(len(batch), RESULT), _Answers(resolver, base)
        self._clear()
        while not self._library.warpgrid_evm_trace_row(
            self._session,
            base.handle,
            base.accounts_complete,
            ctypes.byref(native),
            row,
            pointer(block),
            pointer(results),
            stream.handle,
            answers.native,
        ):
            answers.check()
            self._refuse_overflow(results)
            resolver.resolve(base, batch, self._outcomes(results), [row])
        return self._outcomes(results)

    def _outcomes(self, results: Array) -> Outcomes:
        """Results with a copy of the arena, which the next run overwrites."""
        ends = results["output"] + Outcomes(results, _NO_ARENA).section_bytes()
        self._used = int(ends.max(initial=0))
        arena = np.empty(self._used, "u1")  # not ctypes.string_at, which ends at 2 GiB
        ctypes.memmove(pointer(arena), self._library.warpgrid_evm_session_output(self._session), self._used)
        return Outcomes(results, arena)

    def _clear(self) -> None:
        self._library.warpgrid_evm_session_clear(self._session, self._used > OUTPUT_BYTES_KEPT)
        self._used = 0

    @staticmethod
    def _refuse_overflow(results: Array) -> None:
        overflown = np.flatnonzero(results["status"] == Status.OVERFLOW)
        if len(overflown):
            raise EngineLimit(f"transaction {overflown[0]} needs more memory than the engine's arenas can hold")
