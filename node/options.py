"""Options that several commands share, declared once: a command's body takes one object in place of them."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["taking"]


def taking(
    shared: Sequence[inspect.Parameter], build: Callable[..., object]
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorate a command's body so that it takes the options `shared`, besides those that it declares itself.

    The body's first parameter gets `build(**values of the shared options)`.
    """

    def decorate(body: Callable[..., None]) -> Callable[..., None]:
        own = list(inspect.signature(body).parameters.values())[1:]

        def command(**values: Any) -> None:
            body(build(**{one.name: values.pop(one.name) for one in shared}), **values)

        parameters = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in (*own, *shared)]
        command.__doc__ = body.__doc__
        command.__name__ = body.__name__
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return command

    return decorate
