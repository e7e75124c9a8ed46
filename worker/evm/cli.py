"""`warpgrid evm`: run state tests and programs by hand. The composition root mounts `app`.

Output is for people, or with --json one JSON value a line. Exit status 1: a test failed; 2: the input cannot be used.
"""

import json
import time
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from core import rlp
from core.errors import InvalidInput, TransactionError, WarpgridError
from core.execution import ExecutionOutcome, Executor
from core.hashing import keccak256
from core.signature import recover_sender
from core.transaction import TransactionColumns
from worker.evm.disassembler import disassemble
from worker.evm.native_executor import NativeExecutor
from worker.evm.reference import ReferenceExecutor
from worker.evm.state_test_file import StateTestEntry, read_state_test_file

__all__ = ["app"]

EXIT_FAILED = 1
EXIT_INPUT = 2

app = typer.Typer(help="The EVM: state tests, programs.", no_args_is_help=True)


class ExecutorName(StrEnum):
    """What runs the transactions."""

    CPU = "cpu"
    REFERENCE = "reference"


_EXECUTOR = typer.Option("--executor", help="cpu: the native engine; reference: EELS")
_JSON = typer.Option("--json", help="one JSON object a line")


def _executor(name: ExecutorName) -> Executor:
    reference = ReferenceExecutor()
    return reference if name == ExecutorName.REFERENCE else NativeExecutor(fallback=reference)


@app.command()
def statetest(
    paths: Annotated[list[Path], typer.Argument(help="state-test files, or folders of them")],
    executor: Annotated[ExecutorName, _EXECUTOR] = ExecutorName.CPU,
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """Run state tests and compare root and logs; the last line counts what passed and failed.

    Example:  warpgrid evm statetest tests/ --json
    """
    engine, failed, passed = _executor(executor), [], 0
    for path in paths:
        for file in _files(path):
            for entry in _read(file):
                report = _judge(entry, engine)
                passed += bool(report["pass"])
                if not report["pass"]:
                    failed.append(entry.name)
                if as_json:
                    typer.echo(json.dumps(report))
                elif not report["pass"]:
                    typer.echo(f"FAILED {entry.name}: {report['error']}")
    if as_json:
        typer.echo(json.dumps({"passed": passed, "failed": len(failed), "names": failed}))
    else:
        typer.echo(f"{passed} passed, {len(failed)} failed")
    if failed:
        raise typer.Exit(EXIT_FAILED)


@app.command()
def run(
    file: Annotated[Path, typer.Argument(help="a state-test file")],
    executor: Annotated[ExecutorName, _EXECUTOR] = ExecutorName.CPU,
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """Run every entry of a file and show what it did: status, gas, logs, changed accounts, state root.

    Example:  warpgrid evm run test.json --json
    """
    engine = _executor(executor)
    for entry in _read(file):
        started = time.perf_counter()
        report = _report(entry, engine)
        report["milliseconds"] = round(1e3 * (time.perf_counter() - started), 3)
        typer.echo(json.dumps(report, indent=None if as_json else 2))


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


def _files(path: Path) -> Iterator[Path]:
    if not path.exists():
        _refuse(f"{path} does not exist")
    yield from sorted(path.rglob("*.json")) if path.is_dir() else [path]


def _read(file: Path) -> Iterator[StateTestEntry]:
    try:
        yield from read_state_test_file(file.read_bytes())
    except (InvalidInput, OSError) as error:
        _refuse(f"{file}: {error}")


def _refuse(message: str) -> Any:
    typer.echo(message, err=True)
    raise typer.Exit(EXIT_INPUT)


def _execute(entry: StateTestEntry, engine: Executor) -> ExecutionOutcome | str:
    """The outcome, or why the transaction did not even reach the engine."""
    try:
        tx = entry.transaction()
        columns = TransactionColumns.from_transactions([tx], [recover_sender(tx)])
    except TransactionError as error:
        return str(error)
    return engine.execute_transactions(entry.state(), entry.context, columns)


def _judge(entry: StateTestEntry, engine: Executor) -> dict[str, Any]:
    """A test's result in geth's form: name, pass, fork, stateRoot, error."""
    state, error = entry.state(), ""
    root = state.root
    try:
        outcome = _execute(entry, engine)
    except WarpgridError as refused:
        outcome, error = str(refused), f"{refused.code}: {refused}"
    if isinstance(outcome, str):
        error = error or ("" if entry.must_reject else outcome)
    else:
        root = state.root_after(outcome.difference)
        if bool(outcome.rejections) != entry.must_reject:
            error = f"rejections are {[one.reason.value for one in outcome.rejections]}"
        elif _logs_hash(outcome) != entry.expected_logs_hash:
            error = "logs differ"
    if not error and root != entry.expected_root:
        error = f"post state root mismatch: got {root.hex()}, want {entry.expected_root.hex()}"
    return {
        "name": entry.name,
        "pass": not error,
        "fork": entry.context.fork.name.capitalize(),
        "stateRoot": f"0x{root.hex()}",
        "error": error,
    }


def _logs_hash(outcome: ExecutionOutcome) -> bytes:
    logs = [log for row in range(len(outcome.receipts)) for log in outcome.receipts.logs(row)]
    return keccak256(rlp.encode([[log.address, list(log.topics), log.data] for log in logs]))


def _report(entry: StateTestEntry, engine: Executor) -> dict[str, Any]:
    try:
        outcome = _execute(entry, engine)
    except WarpgridError as refused:
        _refuse(f"{entry.name}: {refused}")
    if isinstance(outcome, str):
        return {"name": entry.name, "rejected": outcome}
    state = entry.state()
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
        "name": entry.name,
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
        "stateRoot": f"0x{state.root_after(outcome.difference).hex()}",
    }
