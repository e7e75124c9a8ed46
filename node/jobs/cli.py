"""`warpgrid job submit|status|list|cancel|verify`."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from core.jobs.request import JobRequest, Message, Role, Sampling
from market.verification import Check, Verdict
from node.client import RpcClient
from node.errors import ConfigError, ServiceError
from node.jobs.records import ClientJob, JobRecords
from node.jobs.rpc import JobsClient
from node.jobs.submit import Submission, open_submission, submit_job
from node.jobs.verify import verify_job
from node.keys import IdentityKey
from node.testnet import layout
from node.wallet import Wallet
from node.worker import sequencer_address
from protos.messages import JobEvent, JobQuery, JobRecord, ListJobs
from worker.inference.cli_model import MODELS_DIR

__all__ = ["app"]

app = typer.Typer(help="Ask a model, pay for the answer, and check it.", no_args_is_help=True)
notes = Console(stderr=True)

_DEADLINE_S = 120
_LIST_MAX = 256
_THOUSAND = 1_000
_MARKS = {Verdict.PASSED: "[green]✓[/]", Verdict.FAILED: "[red]✗[/]", Verdict.UNCHECKED: "[yellow]?[/]"}

DataDir = Annotated[Path, typer.Option("--data-dir", help="folder of a local network (`testnet up`)")]
RpcUrl = Annotated[str, typer.Option("--rpc", help="JSON-RPC of another network; with --grpc and --key-file")]
Grpc = Annotated[str, typer.Option("--grpc", help="host:port of that network's coordinator")]
KeyFile = Annotated[Path | None, typer.Option("--key-file", help="file with the secret key that pays (hex)")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON lines; the last one is one object holding `id`")]
JobId = Annotated[str, typer.Argument(help="the job's id, 0x and 64 hex digits")]


@contextmanager
def _connected(data_dir: Path, rpc: str, grpc: str, key_file: Path | None) -> Iterator[Submission]:
    """The network that the options name: a local one by its folder, or another by its addresses."""
    if bool(rpc) != bool(grpc):
        raise ConfigError("--rpc and --grpc go together: both name the network")
    signer = None if key_file is None else _read_key(key_file)
    if not rpc:
        with open_submission(layout.find(data_dir), signer) as submission:
            yield submission
        return
    if signer is None:
        raise ConfigError("--key-file is missing: it names the account that pays")
    client = RpcClient(rpc)
    with closing(JobsClient(*sequencer_address(grpc))) as coordinator:
        yield Submission(client, Wallet(signer, client), coordinator, JobRecords(Path.home() / ".warpgrid" / "jobs"))


def _read_key(path: Path) -> IdentityKey:
    if not path.exists():
        raise ConfigError(f"{path} does not exist: --key-file names a file with a secret key in hex")
    return IdentityKey.load_or_create(path)


@app.command()
def submit(
    model: Annotated[str, typer.Option(help="model to ask; `smollm2` on a local network")] = "smollm2",
    prompt: Annotated[str, typer.Option(help="the question; `-` reads standard input")] = "-",
    prompt_argument: Annotated[
        str, typer.Argument(metavar="[-]", help="`-` reads the question from standard input")
    ] = "",
    system: Annotated[str, typer.Option(help="instructions that precede the question")] = "",
    max_tokens: Annotated[int, typer.Option(help="longest answer, tokens", min=1)] = 256,
    max_price: Annotated[
        int | None, typer.Option(help="most to pay, wei; default: what no answer can cost more than")
    ] = None,
    temperature: Annotated[float, typer.Option(help="0 is greedy: the same answer every time", min=0, max=2)] = 0.0,
    seed: Annotated[int, typer.Option(help="seed of sampling", min=0)] = 0,
    stop: Annotated[list[str] | None, typer.Option(help="text that ends the answer; may be repeated")] = None,
    deadline: Annotated[int, typer.Option(help="seconds until the money goes back", min=5)] = _DEADLINE_S,
    data_dir: DataDir = Path(".warpgrid/testnet"),
    rpc: RpcUrl = "",
    grpc: Grpc = "",
    key_file: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Fund a job in escrow, have a worker answer it, and stream the answer as it is made.

    Examples:  warpgrid job submit --prompt "What is the capital of France?"  ·  echo "Hello" | warpgrid job submit -
    """
    if prompt_argument not in ("", "-"):
        raise ConfigError(f'give the question as --prompt "{prompt_argument}"')
    text = sys.stdin.read() if prompt == "-" else prompt
    turns = ([Message(Role.SYSTEM, system)] if system else []) + [Message(Role.USER, text)]
    sampling = Sampling(max_tokens, round(temperature * _THOUSAND), seed=seed, stop=tuple(stop or ()))
    request = JobRequest(model, tuple(turns), sampling)

    def progress(sentence: str) -> None:
        if not as_json:
            notes.print(sentence, style="dim", highlight=False)

    with _connected(data_dir, rpc, grpc, key_file) as network:
        last: tuple[ClientJob, JobEvent] | None = None
        attempt = 0
        for job, event in submit_job(network, request, max_price, deadline, progress):
            if attempt and event.attempt > attempt:
                progress(f"\nanother worker begins anew (attempt {event.attempt})")
            attempt, last = event.attempt, (job, event)
            _show(event, as_json)
            if event.receipt is not None:
                break
        assert last is not None, "a coordinator tells at least one event"
        _finish(*last, as_json)


def _show(event: JobEvent, as_json: bool) -> None:
    if as_json:
        line = {"state": event.state, "attempt": event.attempt, "text": event.text, "detail": event.detail}
        sys.stdout.write(json.dumps(line) + "\n")
    elif event.text:
        sys.stdout.write(event.text)
    sys.stdout.flush()


def _finish(job: ClientJob, event: JobEvent, as_json: bool) -> None:
    if event.receipt is None:
        raise ServiceError(f"job 0x{job.job_id.hex()} {event.state}: {event.detail or 'no reason was given'}")
    receipt = event.receipt.receipt
    if as_json:
        summary = {
            "id": "0x" + job.job_id.hex(),
            "output": job.output,
            "model": job.request.model,
            "worker": "0x" + receipt.worker.hex(),
            "usage": {"prompt_tokens": receipt.input_tokens, "completion_tokens": receipt.output_tokens},
            "price_wei": receipt.total_wei,
            "price_max_wei": job.price_max_wei,
            "signature": "0x" + event.receipt.signature.hex(),
        }
        sys.stdout.write(json.dumps(summary) + "\n")
        return
    sys.stdout.write("\n")
    notes.print(
        f"\n{receipt.input_tokens} + {receipt.output_tokens} tokens for {receipt.total_wei} wei "
        f"(at most {job.price_max_wei}) by worker 0x{receipt.worker.hex()[:12]}…\n"
        f"check it:  warpgrid job verify 0x{job.job_id.hex()}",
        style="dim",
        highlight=False,
    )


@app.command()
def status(
    job_id: JobId,
    data_dir: DataDir = Path(".warpgrid/testnet"),
    rpc: RpcUrl = "",
    grpc: Grpc = "",
    key_file: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """What the coordinator knows of a job; with its answer where it was submitted from here.

    Example:  warpgrid job status 0x5f0a...  (ids: `warpgrid job list`)
    """
    wanted = _parse_id(job_id)
    with _connected(data_dir, rpc, grpc, key_file) as network:
        known = network.records.load(wanted)
        record = network.coordinator.status(JobQuery(wanted, known.salt if known else b""))
        _print_records([record], as_json)


@app.command("list")
def list_jobs(
    data_dir: DataDir = Path(".warpgrid/testnet"),
    rpc: RpcUrl = "",
    grpc: Grpc = "",
    key_file: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """The newest jobs that the coordinator knows, whoever submitted them.

    Example:  warpgrid job list --json
    """
    with _connected(data_dir, rpc, grpc, key_file) as network:
        _print_records(list(network.coordinator.list(ListJobs(0, _LIST_MAX)).jobs), as_json)


@app.command()
def cancel(
    job_id: JobId,
    data_dir: DataDir = Path(".warpgrid/testnet"),
    rpc: RpcUrl = "",
    grpc: Grpc = "",
    key_file: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """End a job that has no receipt yet; its money goes back.

    Example:  warpgrid job cancel 0x5f0a...
    """
    wanted = _parse_id(job_id)
    with _connected(data_dir, rpc, grpc, key_file) as network:
        known = network.records.load(wanted)
        if known is None:
            raise ServiceError(f"job {job_id} was not submitted from here, and only its client may cancel it")
        _print_records([network.coordinator.cancel(JobQuery(wanted, known.salt))], as_json)


@app.command()
def verify(
    job_id: JobId,
    data_dir: DataDir = Path(".warpgrid/testnet"),
    rpc: RpcUrl = "",
    grpc: Grpc = "",
    key_file: KeyFile = None,
    models_dir: Annotated[Path, typer.Option(help="where exact models are kept")] = MODELS_DIR,
    as_json: AsJson = False,
) -> None:
    """Check a job again from chain data alone: order, signature, stake, inclusion, payment, and the hashes; and run an
    exact answer again, if its model is here.

    Says what could not be checked, too. The exit status is 1 when a check fails.
    Example:  warpgrid job verify 0x5f0a... --json
    """
    wanted = _parse_id(job_id)
    with _connected(data_dir, rpc, grpc, key_file) as network:
        checks = verify_job(network.rpc, network.wallet, wanted, network.records.load(wanted), models_dir)
    holds = all(check.verdict != Verdict.FAILED for check in checks)
    if as_json:
        shown = [{"name": one.name, "verdict": one.verdict.value, "detail": one.detail} for one in checks]
        sys.stdout.write(json.dumps({"id": job_id, "holds": holds, "checks": shown}) + "\n")
    else:
        _print_checks(checks)
    if not holds:
        raise typer.Exit(1)


def _parse_id(text: str) -> bytes:
    try:
        raw = bytes.fromhex(text.removeprefix("0x"))
    except ValueError as error:
        raise ConfigError(f"`{text}` is not a job id: it must be 0x and 64 hex digits") from error
    if len(raw) != 32:
        raise ConfigError(f"`{text}` is not a job id: it has {len(raw)} bytes, expected 32")
    return raw


def _as_json(record: JobRecord) -> dict[str, Any]:
    receipt = record.receipt.receipt if record.receipt else None
    return {
        "id": "0x" + record.job_id.hex(),
        "state": record.state,
        "attempt": record.attempt,
        "worker": "0x" + record.worker.hex() if record.worker else None,
        "detail": record.detail,
        "output": record.output,
        "output_tokens": receipt.output_tokens if receipt else None,
        "price_wei": receipt.total_wei if receipt else None,
        "settlement": "0x" + record.settlement.hex() if record.settlement else None,
        "audit": record.audit,
        "submitted_at_ms": record.submitted_at_ms,
        "deadline_ms": record.deadline_ms,
    }


def _print_records(records: list[JobRecord], as_json: bool) -> None:
    if as_json:
        for record in records:
            sys.stdout.write(json.dumps(_as_json(record)) + "\n")
        return
    table = Table(box=None, pad_edge=False)
    for title in ("job", "state", "worker", "tokens", "wei", "audit", "detail"):
        table.add_column(title)
    for record in records:
        shown = _as_json(record)
        cells = (shown[name] for name in ("id", "state", "worker", "output_tokens", "price_wei", "audit", "detail"))
        table.add_row(*("-" if cell is None else str(cell) for cell in cells))
    Console().print(table)
    if len(records) == 1 and records[0].output is not None:
        sys.stdout.write(f"\n{records[0].output}\n")


def _print_checks(checks: Sequence[Check]) -> None:
    table = Table(box=None, pad_edge=False)
    for title in ("", "check", "what was seen"):
        table.add_column(title, overflow="fold")
    for check in checks:
        table.add_row(_MARKS[check.verdict], check.name, check.detail)
    Console().print(table)
