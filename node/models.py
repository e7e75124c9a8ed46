"""From a worker's `model` setting to a loaded engine."""

from pathlib import Path

from worker.inference.engine import Engine
from worker.inference.exact.engine import ExactSettings, load_exact
from worker.inference.exact.model import ExactModel
from worker.inference.llama import LlamaSettings, available_memory_bytes, load_llama
from worker.inference.packaged import PACKAGED_MODEL, packaged_model_file

__all__ = ["load_engine", "model_file"]


def model_file(model: str) -> Path:
    """The file or directory that a setting means: a path, or the packaged model's name. Raises ModelNotFound."""
    return packaged_model_file() if model == PACKAGED_MODEL else Path(model)


async def load_engine(model: str, threads: int) -> Engine:
    """Load the model: a directory is an exact model, a file GGUF. Requests call it by the name that it was imported
    under, the setting's name, or its file's without the ending.
    """
    path = model_file(model)
    if path.is_dir():
        exact = ExactSettings(path, ExactModel(path).name, available_memory_bytes(), threads=threads)
        return await load_exact(exact)
    name = model if model == PACKAGED_MODEL else path.stem
    settings = LlamaSettings(path, name, available_memory_bytes())
    if threads:
        settings = LlamaSettings(path, name, available_memory_bytes(), threads=threads)
    return await load_llama(settings)
