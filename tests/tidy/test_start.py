"""What starting the command may import: help, completion and the light commands are quick because they load little."""

import json
import subprocess
import sys

import pytest

from tests.tidy.sources import PACKAGES, ROOT

PRINTED = """
import json, os, sys
from node.cli import main
sys.argv = ["warpgrid", *json.loads(os.environ["ARGUMENTS"])]
try:
    main()
except SystemExit:
    pass
sys.stderr.write("\\n" + json.dumps(sorted(sys.modules)))
"""
HELP_PARTS = {"node.cli", "node.config", "node.errors", "node.lazy", "node.options", "core.errors"}
HELP_PACKAGES = {"annotated_doc", "attr", "markdown_it", "mdurl", "pygments", "rich", "shellingham", "typer"}
HEAVY = {"cryptography", "eth_abi", "ethereum", "gguf", "jinja2", "lmdb", "starlette", "structlog", "xllamacpp"}
COMPLETE = {"_WARPGRID_COMPLETE": "complete_bash", "COMP_WORDS": "warpgrid job s", "COMP_CWORD": "2"}


def imported(*arguments: str, **environment: str) -> set[str]:
    """The modules that running this command line leaves behind."""
    done = subprocess.run(
        [sys.executable, "-c", PRINTED],
        cwd=ROOT,
        env={"ARGUMENTS": json.dumps(arguments), **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return set(json.loads(done.stderr.splitlines()[-1]))


def packages(modules: set[str]) -> set[str]:
    """The packages that are not Python's own."""
    return {one.split(".")[0] for one in modules} - set(sys.stdlib_module_names) - {"__main__"}


def test_help_imports_the_table_of_commands_and_no_command() -> None:
    found = imported("--help")
    own = {one for one in found if one.split(".")[0] in PACKAGES and "." in one}
    assert own == HELP_PARTS
    third_party = {one for one in packages(found) if not one.startswith("_")} - set(PACKAGES)
    assert third_party <= HELP_PACKAGES


@pytest.mark.parametrize(
    "command", ["job status 0x00", "job list", "testnet status", "testnet logs", "config init worker"]
)
def test_light_commands_import_nothing_heavy(command: str) -> None:
    found = packages(imported(*command.split()))
    assert "typer" in found
    assert not found & HEAVY


def test_completion_imports_no_command() -> None:
    assert not packages(imported(**COMPLETE)) & (HEAVY | {"numpy"})
