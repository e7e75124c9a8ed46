"""Options that the commands on models share, and how they tell what came out."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["MODELS_DIR", "AsJson", "ModelsDir", "say", "write_json"]

MODELS_DIR = Path(".warpgrid/models")

ModelsDir = Annotated[Path, typer.Option("--models-dir", help="folder that holds the models")]
AsJson = Annotated[bool, typer.Option("--json", help="machine-readable output")]


def say(line: str) -> None:
    """One line as it is, for a pipe as for a narrow terminal."""
    sys.stdout.write(line + "\n")


def write_json(value: object) -> None:
    sys.stdout.write(json.dumps(value, indent=2) + "\n")
