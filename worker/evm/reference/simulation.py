"""Rules that a simulation may bend: a fixed blob base fee, and precompiled contracts at other addresses.

EELS looks both up by name all over a fork's modules. So a fork is loaded a second time under another name, and only
that copy asks here; blocks and plain calls never touch it.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from typing import Any

from ethereum_types.numeric import Uint

from core.execution import BlockContext
from core.fork import Fork
from worker.evm.reference.rules import ForkRules, rules_of

__all__ = ["bent", "rules_for"]


@dataclass(frozen=True, slots=True)
class _Bent:
    """What differs in the simulation that this thread is running."""

    blob_base_fee: int | None = None
    precompile_moves: tuple[tuple[bytes, bytes | None], ...] = ()


_CURRENT: ContextVar[_Bent] = ContextVar("simulation", default=_Bent())  # noqa: B039 - frozen


def _is_bent(context: BlockContext) -> bool:
    return context.blob_base_fee_override is not None or bool(context.precompile_moves)


def rules_for(context: BlockContext) -> ForkRules:
    """The rules that this context asks for."""
    return _bendable_rules(context.fork) if _is_bent(context) else rules_of(context.fork)


def bent(context: BlockContext) -> AbstractContextManager[None]:
    """While entered, this thread's `rules_for(context)` are bent as the context says."""
    return _bending(context) if _is_bent(context) else nullcontext()


@contextmanager
def _bending(context: BlockContext) -> Iterator[None]:
    token = _CURRENT.set(_Bent(context.blob_base_fee_override, context.precompile_moves))
    try:
        yield
    finally:
        _CURRENT.reset(token)


class _Precompiles(Mapping[bytes, Any]):
    """A fork's precompiled contracts where the simulation has moved them."""

    def __init__(self, original: Mapping[bytes, Any]) -> None:
        self._original = original

    def _moved(self) -> Mapping[bytes, Any]:
        moves = _CURRENT.get().precompile_moves
        if not moves:
            return self._original
        moved = dict(self._original)
        for source, target in moves:
            contract = moved.pop(source, None)
            if contract is not None and target is not None:
                moved[target] = contract
        return moved

    def __getitem__(self, address: bytes) -> Any:
        return self._moved()[address]

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._moved())

    def __len__(self) -> int:
        return len(self._moved())


def _bendable_fee(original: Callable[..., Any]) -> Callable[..., Any]:
    def calculate_blob_gas_price(excess_blob_gas: Any) -> Any:
        fee = _CURRENT.get().blob_base_fee
        return original(excess_blob_gas) if fee is None else Uint(fee)

    return calculate_blob_gas_price


@cache
def _bendable_rules(fork: Fork) -> ForkRules:
    rules = ForkRules(fork, _load_again(f"ethereum.forks.{fork.name.lower()}"))
    precompiles = _Precompiles(rules.module("vm.precompiled_contracts.mapping").PRE_COMPILED_CONTRACTS)
    # `utils.message` keeps the original: what is warm from the start does not move (geth's rule).
    for module in (rules.interpreter, rules.module("vm.precompiled_contracts.mapping")):
        module.PRE_COMPILED_CONTRACTS = precompiles  # type: ignore[attr-defined]
    if fork >= Fork.CANCUN:
        fee = _bendable_fee(rules.module("vm.gas").calculate_blob_gas_price)
        for module in (rules.module("vm.gas"), rules.module("vm.instructions.environment"), rules.fork):
            module.calculate_blob_gas_price = fee  # type: ignore[attr-defined]
    return rules


def _load_again(package: str) -> str:
    """Load a package once more, with modules of its own; returns its new name."""
    name = package.replace(".", "_") + "_bendable"
    original = find_spec(package)
    assert original is not None
    assert original.origin is not None
    spec = spec_from_file_location(
        name, original.origin, submodule_search_locations=original.submodule_search_locations
    )
    assert spec is not None
    assert spec.loader is not None
    sys.modules[name] = module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return name
