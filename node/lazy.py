"""Commands that are imported when they are called, so that help, completion and light commands stay quick.

A deferred command stands in its group's list with a name and a sentence. Only when it is called, or asked for its own
help, is its module imported: the one place where a name in a string stands for code.
"""

from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

__all__ = ["Deferred", "LazyGroup", "defer"]


class Deferred(TyperCommand):
    """Stands for the command or group that its callback imports."""

    def load(self) -> Any:
        """The command itself, under this one's name."""
        assert self.callback is not None, "`defer` gives one"
        loaded = get_command(self.callback())
        loaded.name = self.name
        return loaded


class LazyGroup(TyperGroup):
    """A group that may hold deferred commands; listing them imports nothing."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        return name, command.load() if isinstance(command, Deferred) else command, rest


def defer(app: typer.Typer, name: str, target: str, sentence: str) -> None:
    """Add the function or Typer app `target` ("module:name") to `app`, whose class must be LazyGroup.

    `sentence` is the first of its help (a test compares them).
    """

    def load() -> typer.Typer:
        module, _, attribute = target.partition(":")
        found = getattr(import_module(module), attribute)
        if isinstance(found, typer.Typer):
            return found
        alone = typer.Typer(add_completion=False)
        alone.command()(found)
        return alone

    app.command(name, cls=Deferred, help=sentence)(load)
