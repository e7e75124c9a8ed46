"""From a worker's `model` setting to a loaded engine, and from the packaged model to an exact one."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from node.errors import ConfigError
from worker.inference.engine import Engine
from worker.inference.errors import ModelNotFound
from worker.inference.exact.convert import Recipe, import_checkpoint, open_checkpoint
from worker.inference.exact.devices import DeviceChoice
from worker.inference.exact.engine import ExactSettings, load_exact
from worker.inference.exact.model import ExactModel, ModelStore
from worker.inference.llama import LlamaSettings, available_memory_bytes, load_llama
from worker.inference.packaged import PACKAGED_MODEL, packaged_model_file
from worker.inference.proof_opener import AnswerOpener
from worker.inference.proof_trace import recording
from worker.jobs import Opener

__all__ = ["LoadedModel", "engine_device", "load_model", "model_file", "model_name", "packaged_exact_model"]


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """An engine that answers jobs; on the exact tier, `opener` opens its answers for audits, and `exact` is what they
    are defended from."""

    engine: Engine
    opener: Opener | None = None
    exact: ExactModel | None = None


def model_file(model: str) -> Path:
    """The file or directory that a setting means: a path, or the packaged model's name. Raises ModelNotFound."""
    return packaged_model_file() if model == PACKAGED_MODEL else Path(model)


def model_name(model: str) -> str:
    """What requests call the model of a setting: the name that an exact one was imported under, the packaged model's,
    or a file's without its ending.
    """
    path = model_file(model)
    if path.is_dir():
        return ExactModel(path).name
    return model if model == PACKAGED_MODEL else path.stem


def engine_device(text: str) -> DeviceChoice:
    """What the setting `engine_device` means. Raises ConfigError."""
    try:
        return DeviceChoice(text)
    except ValueError as error:
        raise ConfigError(f"`engine_device` must be auto, cpu or gpu, not {text!r}") from error


async def load_model(model: str, threads: int, device: DeviceChoice = DeviceChoice.AUTO) -> LoadedModel:
    """Load the model of a setting: a directory is an exact model, which runs on `device`, a file GGUF."""
    path = model_file(model)
    if path.is_dir():
        exact = ExactModel(path)
        settings = ExactSettings(path, exact.name, available_memory_bytes(), threads=threads, device=device)
        engine = await load_exact(settings, recording(exact))
        return LoadedModel(engine, AnswerOpener(exact, engine), exact)
    limits = {"threads": threads} if threads else {}
    return LoadedModel(await load_llama(LlamaSettings(path, model_name(model), available_memory_bytes(), **limits)))


def packaged_exact_model(models_dir: Path, progress: Callable[[int, int], None]) -> Path:
    """The packaged model as an exact one, imported into `models_dir` if it is not there yet (a quarter of a minute).

    Raises ModelNotFound when the package is not installed.
    """
    store = ModelStore(models_dir)
    try:
        return store.find(PACKAGED_MODEL)
    except ModelNotFound:
        checkpoint = open_checkpoint(packaged_model_file())
        root = import_checkpoint(checkpoint, store, PACKAGED_MODEL, Recipe(), progress)
        return store.find(root.hex())
