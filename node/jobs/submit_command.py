"""`warpgrid job submit`: from the command line's words to a request, and from a job's events to the terminal."""

import json
import sys
from typing import Annotated

import typer
from rich.console import Console

from core.jobs.request import JobRequest, Message, Role, Sampling
from node.errors import ConfigError, ServiceError
from node.jobs.network import AsJson, JobNetwork, on_network
from node.jobs.records import ClientJob
from node.jobs.submit import KeyFile, open_submission, payer_of, submit_job
from protos.job_messages import JobEvent

__all__ = ["submit"]

notes = Console(stderr=True)

_DEADLINE_S = 120
_THOUSAND = 1_000


def _only_a_dash(argument: str) -> str:
    if argument not in ("", "-"):
        raise ConfigError(f'give the question as --prompt "{argument}"')
    return argument


@on_network
def submit(
    network: JobNetwork,
    model: Annotated[str, typer.Option(help="model to ask; `smollm2` on a local network")] = "smollm2",
    prompt: Annotated[str, typer.Option(help="the question; `-` reads standard input")] = "-",
    prompt_argument: Annotated[
        str, typer.Argument(metavar="[-]", help="`-` reads the question from standard input", callback=_only_a_dash)
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
    key_file: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Fund a job in escrow, have a worker answer it, and stream the answer as it is made.

    Examples:  warpgrid job submit --prompt "What is the capital of France?"  ·  echo "Hello" | warpgrid job submit -
    """
    text = sys.stdin.read() if prompt == "-" else prompt
    turns = ([Message(Role.SYSTEM, system)] if system else []) + [Message(Role.USER, text)]
    sampling = Sampling(max_tokens, round(temperature * _THOUSAND), seed=seed, stop=tuple(stop or ()))
    request = JobRequest(model, tuple(turns), sampling)

    def progress(sentence: str) -> None:
        if not as_json:
            notes.print(sentence, style="dim", highlight=False)

    with open_submission(network, payer_of(network, key_file)) as to:
        last: tuple[ClientJob, JobEvent] | None = None
        attempt = 0
        for job, event in submit_job(to, request, max_price, deadline, progress):
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
