"""The repository's own files, as the tidy tests see them: what git tracks or would track."""

import ast
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

__all__ = ["PACKAGES", "ROOT", "Module", "modules", "text_files"]

ROOT = Path(__file__).parents[2]
PACKAGES = ("core", "protos", "zk", "market", "sequencer", "worker", "node")

_GENERATED = ("protos/gen/", "zk/contracts/artifacts/", "market/contracts/artifacts/", "sequencer/contracts/artifacts/")


@dataclass(frozen=True)
class Module:
    """A Python file: its dotted name, its path from the root, its text and syntax tree."""

    name: str
    path: str
    text: str
    tree: ast.Module

    @property
    def room(self) -> str:
        return self.name.split(".")[0]


@cache
def text_files() -> tuple[tuple[str, str], ...]:
    """(path from the root, text) of every text file that is not generated."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True
    )
    paths = [path for path in listed.stdout.decode().splitlines() if (ROOT / path).is_file()]
    contents = {path: (ROOT / path).read_bytes() for path in paths if not path.startswith(_GENERATED)}
    return tuple((path, raw.decode()) for path, raw in contents.items() if b"\0" not in raw and _is_text(raw))


@cache
def modules() -> tuple[Module, ...]:
    """Every Python file of the packages and of the tests."""
    found = []
    for path, text in text_files():
        if path.endswith(".py") and path.split("/")[0] in (*PACKAGES, "tests"):
            parts = path.removesuffix(".py").removesuffix("/__init__").split("/")
            found.append(Module(".".join(parts), path, text, ast.parse(text, path)))
    return tuple(found)


def _is_text(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True
