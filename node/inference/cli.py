"""`warpgrid inference run|serve`: an exact model by hand."""

import asyncio
import json
import secrets
import socket
import sys
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from core.errors import InvalidInput
from core.jobs.request import JobRequest, Message, Role, Sampling, Tier
from node.inference.server import listen
from node.inference.server import serve as serve_engine
from worker.inference.answer_file import AnswerFile
from worker.inference.cli_options import MODELS_DIR, ModelsDir
from worker.inference.cli_proofs import app as proofs_app
from worker.inference.engine import Completion, Engine
from worker.inference.exact.devices import DeviceChoice
from worker.inference.exact.engine import ExactSettings, load_exact
from worker.inference.exact.model import ExactModel, ModelStore
from worker.inference.exact.tokenizer import ChatTokenizer
from worker.inference.llama import available_memory_bytes
from worker.inference.proof_trace import recording, statement_of

__all__ = ["app"]

app = typer.Typer(help="Run a model on this machine, exactly.", no_args_is_help=True)
app.add_typer(proofs_app)
notes = Console(stderr=True)

_THOUSAND = 1000

Reference = Annotated[str, typer.Argument(help="a model's name, its root, the root's first digits, or its directory")]
Threads = Annotated[int, typer.Option(help="cores to use; 0 takes all", min=0)]
Where = Annotated[DeviceChoice, typer.Option(help="where it runs; auto takes a GPU that can; the bytes are the same")]


@app.command()
def run(
    model: Reference,
    prompt: Annotated[str, typer.Argument(help="what to ask; `-` reads standard input")],
    system: Annotated[str, typer.Option(help="instructions that come before the question")] = "",
    max_tokens: Annotated[int, typer.Option(help="longest answer")] = 256,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token")] = 0.0,
    top_p: Annotated[float, typer.Option(help="share of the probability that is drawn from; 1 is all")] = 1.0,
    top_k: Annotated[int, typer.Option(help="0 switches it off")] = 0,
    seed: Annotated[int, typer.Option(help="the same seed gives the same answer, on every machine")] = 0,
    save: Annotated[Path | None, typer.Option(help="file for the answer with its trace root, to be replayed")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object when the answer is complete")] = False,
    threads: Threads = 0,
    device: Where = DeviceChoice.AUTO,
    models_dir: ModelsDir = MODELS_DIR,
) -> None:
    """Ask one question; the answer goes to standard output as it is made.

    Examples:  warpgrid inference run smollm2 "What is the capital of France?"
               warpgrid inference run smollm2 "Tell a story." --temperature 0.8 --seed 7 --save answer.json
    """
    if save is not None and not save.parent.is_dir():
        raise InvalidInput(f"cannot save to {save}: there is no folder {save.parent}")
    question = sys.stdin.read() if prompt == "-" else prompt
    sampling = Sampling(max_tokens, round(temperature * _THOUSAND), round(top_p * _THOUSAND), top_k, seed)
    messages = [Message(Role.SYSTEM, system)] if system else []
    messages.append(Message(Role.USER, question))
    directory = _locate(model, models_dir)
    answered = asyncio.run(_answer(directory, tuple(messages), sampling, threads, device, streams=not as_json))
    if save is not None:
        _answer_file(ExactModel(directory), answered).write(save)
    if as_json:
        sys.stdout.write(json.dumps(_as_json(answered)) + "\n")


@app.command()
def serve(
    model: Reference,
    host: Annotated[str, typer.Option(help="address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="port to listen on", min=1, max=65_535)] = 8000,
    threads: Threads = 0,
    device: Where = DeviceChoice.AUTO,
    models_dir: ModelsDir = MODELS_DIR,
) -> None:
    """Serve an OpenAI-compatible endpoint until Ctrl-C.

    Example:  warpgrid inference serve smollm2 --port 8000, then base_url="http://127.0.0.1:8000/v1"
    """
    directory = _locate(model, models_dir)
    with listen(host, port) as listener:
        asyncio.run(_serve(directory, listener, threads, device))


def _locate(reference: str, models_dir: Path) -> Path:
    path = Path(reference)
    return path if path.is_dir() else ModelStore(models_dir).find(reference)


@dataclass(frozen=True, slots=True)
class _Answered:
    """A request and the whole answer to it."""

    request: JobRequest
    salt: bytes
    text: str
    completion: Completion


async def _load(directory: Path, threads: int, device: DeviceChoice) -> Engine:
    model = ExactModel(directory)
    settings = ExactSettings(directory, model.name, available_memory_bytes(), threads=threads, device=device)
    return await load_exact(settings, recording(model))


async def _answer(
    directory: Path,
    messages: tuple[Message, ...],
    sampling: Sampling,
    threads: int,
    device: DeviceChoice,
    *,
    streams: bool,
) -> _Answered:
    """Answer, and say the answer as it is made where it `streams`."""
    engine = await _load(directory, threads, device)
    request = JobRequest(engine.model.model_id, messages, sampling, Tier.EXACT)
    salt, text = secrets.token_bytes(32), ""
    try:
        async with aclosing(engine.generate(request, salt)) as parts:
            async for part in parts:
                if isinstance(part, Completion):
                    completion = part
                    continue
                text += part.text
                if streams:
                    sys.stdout.write(part.text)
                    sys.stdout.flush()
    finally:
        await engine.close()
    if streams:
        sys.stdout.write("\n")
        used = (
            f"{completion.input_tokens} tokens in, {completion.output_tokens} out, ended by {completion.finish_reason}"
        )
        notes.print(used, style="dim", highlight=False)
    return _Answered(request, salt, text, completion)


def _answer_file(model: ExactModel, answered: _Answered) -> AnswerFile:
    prompt = ChatTokenizer(model.tokenizer, model.chat_template).encode_chat(answered.request.messages)
    statement = statement_of(model, answered.request, answered.salt, prompt, answered.completion.tokens)
    return AnswerFile(statement, answered.completion.trace_root, answered.text)


def _as_json(answered: _Answered) -> dict[str, str | int]:
    completion = answered.completion
    return {
        "text": answered.text,
        "finish_reason": completion.finish_reason,
        "input_tokens": completion.input_tokens,
        "output_tokens": completion.output_tokens,
        "trace_root": completion.trace_root.hex(),
    }


async def _serve(directory: Path, listener: socket.socket, threads: int, device: DeviceChoice) -> None:
    engine = await _load(directory, threads, device)
    host, port = listener.getsockname()[:2]
    at = f"[{host}]" if ":" in host else host
    notes.print(f"{engine.model.model_id} at http://{at}:{port}/v1", highlight=False, soft_wrap=True)
    try:
        await serve_engine(engine, listener)
    finally:
        await engine.close()
