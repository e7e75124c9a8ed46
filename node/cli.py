"""The `warpgrid` command: puts the rooms' commands together and is the process edge where typed errors become exits."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from core.errors import WarpgridError
from node.config import ROLES, example_toml
from node.errors import ConfigError
from node.testnet.cli import app as testnet_app

__all__ = ["app", "main"]

EXIT_ERROR = 1
EXIT_INTERRUPTED = 130

app = typer.Typer(
    name="warpgrid",
    help="A GPU network: an Ethereum L2 executed by CUDA kernels, and an open market for AI compute.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
config_app = typer.Typer(help="Settings files.", no_args_is_help=True)
app.add_typer(testnet_app, name="testnet")
app.add_typer(config_app, name="config")


@config_app.command("init")
def config_init(
    role: Annotated[str, typer.Argument(help=f"one of {', '.join(ROLES)}")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="file to write; standard output if left out")
    ] = None,
) -> None:
    """Write a commented settings file with every setting of a role at its default.

    Example:  warpgrid config init worker -o worker.toml
    """
    if role not in ROLES:
        raise ConfigError(f"there is no role `{role}`; roles are {', '.join(ROLES)}")
    if output is None:
        sys.stdout.write(example_toml(role))
        return
    try:
        with output.open("x", encoding="utf-8") as file:
            file.write(example_toml(role))
    except FileExistsError as error:
        raise ConfigError(f"{output} exists; choose another name, so that nothing is overwritten") from error
    except OSError as error:
        raise ConfigError(f"cannot write {output}: {error.strerror}") from error


def main() -> int:
    """Run the command line. A typed error becomes one sentence on standard error and exit status 1."""
    try:
        app()
    except WarpgridError as error:
        if "--json" in sys.argv:
            sys.stdout.write(json.dumps({"error": {"code": error.code, "message": str(error)}}) + "\n")
        else:
            Console(stderr=True).print(f"[bold red]error[/] {error.code}: ", end="", highlight=False)
            Console(stderr=True).print(str(error), markup=False, highlight=False)
        return EXIT_ERROR
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
