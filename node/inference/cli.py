"""`warpgrid inference run|serve`: an exact model by hand."""

import asyncio
import sys
from contextlib import aclosing
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from core.jobs.request import JobRequest, Message, Role, Sampling, Tier
from node.inference.server import serve as serve_engine
from worker.inference.cli_proofs import app as proofs_app
from worker.inference.engine import Completion, Engine
from worker.inference.exact.devices import DeviceChoice
from worker.inference.exact.engine import ExactSettings, load_exact
from worker.inference.exact.model import ExactModel, ModelStore
from worker.inference.llama import available_memory_bytes

__all__ = ["app"]

app = typer.Typer(help="Run a model on this machine, exactly.", no_args_is_help=True)
app.add_typer(proofs_app)
notes = Console(stderr=True)

MODELS_DIR = Path(".warpgrid/models")
_THOUSAND = 1000

Reference = Annotated[str, typer.Argument(help="a model's name, its root, the root's first digits, or its directory")]
ModelsDir = Annotated[Path, typer.Option("--models-dir", help="folder that holds the models")]
Threads = Annotated[int, typer.Option(help="cores to use; 0 takes all", min=0)]
Where = Annotated[DeviceChoice, typer.Option(help="where it runs; auto takes a GPU that can; the bytes are the same")]


@app.command()
def run(
    model: Reference,
    prompt: Annotated[str, typer.Argument(help="what to ask; `-` reads standard input")],
    max_tokens: Annotated[int, typer.Option(help="longest answer")] = 256,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token")] = 0.0,
    top_p: Annotated[float, typer.Option(help="share of the probability that is drawn from; 1 is all")] = 1.0,
    top_k: Annotated[int, typer.Option(help="0 switches it off")] = 0,
    seed: Annotated[int, typer.Option(help="the same seed gives the same answer, on every machine")] = 0,
    threads: Threads = 0,
    device: Where = DeviceChoice.AUTO,
    models_dir: ModelsDir = MODELS_DIR,
) -> None:
    """Ask one question; the answer goes to standard output as it is made.

    Example:  warpgrid inference run smollm2 "What is the capital of France?"
    """
    question = sys.stdin.read() if prompt == "-" else prompt
    sampling = Sampling(max_tokens, round(temperature * _THOUSAND), round(top_p * _THOUSAND), top_k, seed)
    directory = _locate(model, models_dir)
    asyncio.run(_answer(directory, question, sampling, threads, device))


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
    asyncio.run(_serve(_locate(model, models_dir), host, port, threads, device))


def _locate(reference: str, models_dir: Path) -> Path:
    path = Path(reference)
    return path if path.is_dir() else ModelStore(models_dir).find(reference)


async def _load(directory: Path, threads: int, device: DeviceChoice) -> Engine:
    name = ExactModel(directory).name
    settings = ExactSettings(directory, name, available_memory_bytes(), threads=threads, device=device)
    return await load_exact(settings)


async def _answer(directory: Path, question: str, sampling: Sampling, threads: int, device: DeviceChoice) -> None:
    engine = await _load(directory, threads, device)
    request = JobRequest(engine.model.model_id, (Message(Role.USER, question),), sampling, Tier.EXACT)
    try:
        async with aclosing(engine.generate(request)) as parts:
            async for part in parts:
                if isinstance(part, Completion):
                    sys.stdout.write("\n")
                    used = f"{part.input_tokens} tokens in, {part.output_tokens} out, ended by {part.finish_reason}"
                    notes.print(used, style="dim", highlight=False)
                else:
                    sys.stdout.write(part.text)
                sys.stdout.flush()
    finally:
        await engine.close()


async def _serve(directory: Path, host: str, port: int, threads: int, device: DeviceChoice) -> None:
    engine = await _load(directory, threads, device)
    notes.print(f"{engine.model.model_id} at http://{host}:{port}/v1", highlight=False)
    try:
        await serve_engine(engine, host, port)
    finally:
        await engine.close()
