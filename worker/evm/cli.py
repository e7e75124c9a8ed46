"""`warpgrid evm`: run state tests, blocks and programs by hand. The composition root mounts `app`.

Output is for people, or with --json one JSON value a line. Traces go to standard error, as geth's do. Exit status 1: a
test failed; 2: the input cannot be used, or this machine lacks what was asked for.
"""

import json
import sys
import time
from collections.abc import Iterator
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, NoReturn

import orjson
import typer

from core.errors import InvalidInput, WarpgridError
from core.execution import ExecutionOutcome, Executor
from core.gpu import Device
from worker.evm.disassembler import disassemble
from worker.evm.engine import Engine
from worker.evm.gpu_engine import GpuEngine
from worker.evm.measurement import measure
from worker.evm.native_executor import NativeExecutor
from worker.evm.reference import ReferenceExecutor
from worker.evm.state_test_file import StateTestEntry, read_state_test_file
from worker.evm.state_test_run import Verdict, execute_entry, judge, judge_all, trace_entry
from worker.evm.trace_lines import trace_lines
from worker.evm.transition import alloc_of, run_transition, trace_transition
from worker.evm.transition_file import Transition, fork_of_name, read_transition
from worker.evm.workloads import WORKLOADS

__all__ = ["app"]

EXIT_FAILED = 1
EXIT_INPUT = 2

BATCH_ENTRIES_MAX = 16_384
KERNEL_CACHE = Path.home() / ".cache" / "warpgrid" / "kernels"

_T8N_FILES = ("alloc.json", "env.json", "txs.json")

app = typer.Typer(help="The EVM: state tests, blocks, programs, speed.", no_args_is_help=True)


class ExecutorName(StrEnum):
    """What runs the transactions."""

    CPU = "cpu"
    GPU = "gpu"
    REFERENCE = "reference"


_EXECUTOR = typer.Option("--executor", help="cpu: the native engine; gpu: the same on a GPU; reference: EELS")
_JSON = typer.Option("--json", help="one JSON object a line")
_TRACE = typer.Option("--trace", help="every instruction as a line of JSON (EIP-3155) on standard error")


@app.command()
def statetest(
    paths: Annotated[list[Path], typer.Argument(help="state-test files, or folders of them")],
    executor: Annotated[ExecutorName, _EXECUTOR] = ExecutorName.CPU,
    trace: Annotated[bool, _TRACE] = False,
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """Run state tests and compare root and logs; the last line counts what passed and failed.

    Examples:  warpgrid evm statetest tests/ --json
               warpgrid evm statetest tests/ --executor gpu
               warpgrid evm statetest failing.json --trace 2>trace.jsonl
    """
    failed, passed = [], 0
    for verdict in _verdicts(paths, executor, trace=trace):
        passed += not verdict.error
        if verdict.error:
            failed.append(verdict.name)
        if as_json:
            typer.echo(json.dumps(verdict.as_geth()))
        elif verdict.error:
            typer.echo(f"FAILED {verdict.name}: {verdict.error}")
    if as_json:
        typer.echo(json.dumps({"passed": passed, "failed": len(failed), "names": failed}))
    else:
        typer.echo(f"{passed} passed, {len(failed)} failed")
    if failed:
        raise typer.Exit(EXIT_FAILED)


@app.command()
def run(
    path: Annotated[
        Path, typer.Argument(help="a state test; a JSON object of alloc, env and txs; or a folder of them")
    ],
    executor: Annotated[ExecutorName, _EXECUTOR] = ExecutorName.CPU,
    fork: Annotated[str, typer.Option("--fork", help="rules of a block (state tests name their own)")] = "Osaka",
    chain_id: Annotated[int, typer.Option("--chain-id", help="of a block")] = 1,
    transactions_only: Annotated[
        bool, typer.Option("--transactions-only", help="no system calls, withdrawals and requests")
    ] = False,
    out: Annotated[Path | None, typer.Option("--out", help="folder for result.json and alloc.json")] = None,
    trace: Annotated[bool, _TRACE] = False,
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """Run a file and show what it did: receipts, gas, roots, the state after.

    A state test runs every entry on its own. A block (geth's `evm t8n`: alloc.json, env.json, txs.json in one folder,
    or as one object) runs its transactions in order; transactions are signed, or come with a secretKey.

    Examples:  warpgrid evm run test.json --json
               warpgrid evm run block/ --fork Prague --out after/
               warpgrid evm run test.json --trace 2>trace.jsonl
    """
    inputs = _read_input(path)
    if isinstance(inputs, tuple):
        if executor == ExecutorName.GPU:
            _refuse("a block runs in order, the GPU runs independent transactions: use --executor cpu")
        try:
            transition = read_transition(*inputs, fork_of_name(fork), chain_id)
        except InvalidInput as error:
            _refuse(f"{path}: {error}")
        _run_block(
            transition, _executor(executor), out, whole_block=not transactions_only, trace=trace, as_json=as_json
        )
        return
    engine = _executor(ExecutorName.CPU if executor == ExecutorName.GPU else executor)
    if executor == ExecutorName.GPU:
        _refuse("one entry after the other is no work for a GPU: use `warpgrid evm statetest --executor gpu`")
    for entry in _entries(path, inputs):
        if trace:
            _print_trace(entry, engine)
        started = time.perf_counter()
        report = _report(entry, engine)
        report["milliseconds"] = round(1e3 * (time.perf_counter() - started), 3)
        typer.echo(json.dumps(report, indent=None if as_json else 2))


@app.command()
def bench(
    workloads: Annotated[
        list[str] | None, typer.Argument(help=f"any of {', '.join(WORKLOADS)}; all if left out")
    ] = None,
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="transactions in a batch")] = 16_384,
    executor: Annotated[ExecutorName, _EXECUTOR] = ExecutorName.CPU,
    threads: Annotated[int, typer.Option("--threads", min=0, help="of the cpu executor; 0: one a core")] = 0,
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="the best run is told")] = 3,
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """Measure batches of independent transactions; every run is checked.

    Each transaction must succeed, and on a GPU a sample of rows must equal the CPU's outcome byte for byte.

    Examples:  warpgrid evm bench
               warpgrid evm bench erc20_transfer swap -n 1000000 --executor gpu --json
    """
    names = workloads or list(WORKLOADS)
    unknown = [name for name in names if name not in WORKLOADS]
    if unknown:
        _refuse(f"there is no workload {unknown[0]}; there are {', '.join(WORKLOADS)}")
    if executor == ExecutorName.REFERENCE:
        _refuse("the reference is there to be right, not fast: use --executor cpu or gpu")
    engine = _gpu() if executor == ExecutorName.GPU else Engine(threads or None)
    for name in names:
        try:
            figures = measure(name, count, engine, repeats)
        except WarpgridError as error:
            _refuse(str(error))
        if as_json:
            typer.echo(json.dumps(figures))
        else:
            typer.echo(
                f"{name:20s} {count:>9,d} transactions  {figures['transactions_per_second']:>14,.0f} /s"
                f"  {figures['gas_per_second'] / 1e6:>10,.1f} Mgas/s  checked"
            )


@app.command()
def disasm(code: Annotated[str, typer.Argument(help="hexadecimal code, or a file that holds it")]) -> None:
    """Show a program's instructions, one a line.

    Example:  warpgrid evm disasm 0x6001600201
    """
    text = Path(code).read_text() if Path(code).is_file() else code
    try:
        raw = bytes.fromhex("".join(text.split()).removeprefix("0x"))
    except ValueError as error:
        _refuse(f"not hexadecimal code: {error}")
    for position, instruction in disassemble(raw):
        typer.echo(f"{position:5d}  {instruction}")


# ---- engines ----


def _executor(name: ExecutorName) -> Executor:
    reference = ReferenceExecutor()
    return reference if name == ExecutorName.REFERENCE else NativeExecutor(fallback=reference)


def _gpu() -> GpuEngine:
    try:
        return GpuEngine(Device(0, KERNEL_CACHE))
    except WarpgridError as error:
        _refuse(f"{error}; or use --executor cpu")


# ---- state tests ----


def _verdicts(paths: list[Path], name: ExecutorName, *, trace: bool) -> Iterator[Verdict]:
    entries = (entry for path in paths for file in _files(path) for entry in _entries(file, file.read_bytes()))
    if name == ExecutorName.GPU:
        if trace:
            _refuse("a GPU does not trace: use --executor cpu, which gives the same bytes")
        engine = _gpu()
        while chunk := list(islice(entries, BATCH_ENTRIES_MAX)):
            try:
                yield from judge_all(chunk, engine)
            except WarpgridError as error:
                _refuse(str(error))
        return
    executor = _executor(name)
    for entry in entries:
        if trace:
            _print_trace(entry, executor)
        verdict = judge(entry, executor)
        if trace:
            typer.echo(json.dumps({"stateRoot": f"0x{verdict.state_root.hex()}"}), err=True)
        yield verdict


def _print_trace(entry: StateTestEntry, executor: Executor) -> None:
    traced = trace_entry(entry, executor)
    if traced is not None:
        for line in trace_lines(traced):
            typer.echo(line, err=True)


def _report(entry: StateTestEntry, engine: Executor) -> dict[str, Any]:
    try:
        outcome = execute_entry(entry, engine)
    except WarpgridError as refused:
        _refuse(f"{entry.name}: {refused}")
    if isinstance(outcome, str):
        return {"name": entry.name, "rejected": outcome}
    return {"name": entry.name, **_effects(entry, outcome)}


def _effects(entry: StateTestEntry, outcome: ExecutionOutcome) -> dict[str, Any]:
    accounts = {
        f"0x{address.hex()}": {
            "exists": change.account is not None,
            "nonce": change.account.nonce if change.account else 0,
            "balance": hex(change.account.balance) if change.account else "0x0",
            "storage": {hex(slot): hex(value) for slot, value in change.storage.items()},
        }
        for address, change in outcome.difference.changes()
    }
    return {
        "rejected": outcome.rejections[0].reason.value if outcome.rejections else None,
        "succeeded": bool(outcome.receipts.succeeded.all()),
        "gasUsed": outcome.gas_used,
        "logs": [
            {
                "address": f"0x{log.address.hex()}",
                "topics": [topic.hex() for topic in log.topics],
                "data": log.data.hex(),
            }
            for row in range(len(outcome.receipts))
            for log in outcome.receipts.logs(row)
        ],
        "accounts": accounts,
        "stateRoot": f"0x{entry.state().root_after(outcome.difference).hex()}",
    }


# ---- blocks ----


def _run_block(
    transition: Transition, executor: Executor, out: Path | None, *, whole_block: bool, trace: bool, as_json: bool
) -> None:
    try:
        result, after, columns = run_transition(transition, executor, whole_block=whole_block)
        traces = trace_transition(transition, executor, columns, whole_block=whole_block) if trace else ()
        for row, lines in traces:
            _write_trace(row, columns.hash[row].tobytes(), lines, out)
    except WarpgridError as error:
        _refuse(str(error))
    if out is None:
        typer.echo(json.dumps({"result": result, "alloc": alloc_of(after)}, indent=None if as_json else 2))
        return
    out.mkdir(parents=True, exist_ok=True)
    (out / "result.json").write_text(json.dumps(result, indent=2))
    (out / "alloc.json").write_text(json.dumps(alloc_of(after), indent=2))
    summary = {"stateRoot": result["stateRoot"], "gasUsed": result["gasUsed"], "out": str(out)}
    typer.echo(json.dumps(summary) if as_json else f"state root {summary['stateRoot']}; result and alloc are in {out}")


def _write_trace(row: int, identity: bytes, lines: Iterator[str], out: Path | None) -> None:
    """Into geth's file for this transaction, or to standard error."""
    if out is None:
        for line in lines:
            typer.echo(line, err=True)
        return
    out.mkdir(parents=True, exist_ok=True)
    (out / f"trace-{row}-0x{identity.hex()}.jsonl").write_text("".join(f"{line}\n" for line in lines))


# ---- files ----


def _files(path: Path) -> Iterator[Path]:
    if not path.exists():
        _refuse(f"{path} does not exist")
    yield from sorted(path.rglob("*.json")) if path.is_dir() else [path]


def _entries(file: Path, raw: bytes) -> Iterator[StateTestEntry]:
    try:
        yield from read_state_test_file(raw)
    except InvalidInput as error:
        _refuse(f"{file}: {error}")


def _read_input(path: Path) -> bytes | tuple[bytes, bytes, bytes]:
    """A state-test file's bytes, or alloc, env and txs of a block."""
    if path.is_dir():
        missing = [name for name in _T8N_FILES if not (path / name).is_file()]
        if missing:
            _refuse(f"{path} holds no {missing[0]}: a block is a folder of {', '.join(_T8N_FILES)}")
        alloc, env, txs = ((path / name).read_bytes() for name in _T8N_FILES)
        return alloc, env, txs
    if not path.exists():
        _refuse(f"{path} does not exist")
    raw = path.read_bytes()
    try:
        content = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        _refuse(f"{path}: not JSON: {error}")
    if isinstance(content, dict) and {"alloc", "env", "txs"} <= content.keys():
        alloc, env, txs = (orjson.dumps(content[name]) for name in ("alloc", "env", "txs"))
        return alloc, env, txs
    return raw


def _refuse(message: str) -> NoReturn:
    sys.stdout.flush()
    typer.echo(message, err=True)
    raise typer.Exit(EXIT_INPUT)
