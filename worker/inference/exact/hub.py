"""Fetches a checkpoint from the Hugging Face hub: only the files that an import reads, and never code or pickles."""

import re
from pathlib import Path
from typing import Final

from worker.inference.errors import CheckpointError

__all__ = ["fetch_checkpoint", "is_hub_name"]

FILES: Final = ("*.safetensors", "model.safetensors.index.json", "*.json", "chat_template.jinja")


def is_hub_name(text: str) -> bool:
    """Whether the text has the form organisation/name."""
    return re.fullmatch(r"[\w.-]+/[\w.-]+", text) is not None and ".." not in text


def fetch_checkpoint(name: str) -> Path:
    """The folder of a model's current files: downloaded, or from the hub's own cache when there is no network.

    Raises CheckpointError when the model does not exist, needs a login, or cannot be reached.
    """
    # Half a second to import, for one command: every other start of a node goes without.
    from huggingface_hub import snapshot_download  # noqa: PLC0415
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError  # noqa: PLC0415

    try:
        return Path(snapshot_download(name, allow_patterns=list(FILES)))
    except LocalEntryNotFoundError as error:
        raise CheckpointError(
            f"{name} is not in the local cache, and the hub cannot be reached: check the network, or name a folder or "
            "GGUF file on this machine"
        ) from error
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise CheckpointError(f"{name} cannot be fetched from the hub: {error}") from error
