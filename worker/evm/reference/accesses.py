"""What a transaction touched, as EIP-2930 lists it. Sees EELS's warm sets from Berlin on, nothing else."""

from collections.abc import Iterable
from typing import Any

from core.transaction import AccessListEntry

__all__ = ["Accesses"]


class Accesses:
    """Remembers every address and slot whose warmth was asked for, in reverted messages too (as geth's tracer does)."""

    def __init__(self) -> None:
        self._addresses: set[bytes] = set()
        self._slots: set[tuple[bytes, bytes]] = set()
        self._free: set[bytes] = set()

    def watch(self, message: Any, precompiles: frozenset[bytes]) -> None:
        """Watch the outermost message, whose own parties and the precompiles are warm without being listed."""
        message.accessed_addresses = _Watched(message.accessed_addresses, self._addresses)
        message.accessed_storage_keys = _Watched(message.accessed_storage_keys, self._slots)
        self._free = {message.caller, message.current_target, *precompiles}

    def entries(self) -> tuple[AccessListEntry, ...]:
        """The access list that would have made everything warm, in order of address and slot."""
        keys: dict[bytes, list[bytes]] = {bytes(address): [] for address in self._addresses - self._free}
        for address, slot in sorted(self._slots):
            keys.setdefault(bytes(address), []).append(bytes(slot))
        return tuple(AccessListEntry(address, tuple(slots)) for address, slots in sorted(keys.items()))


class _Watched(set[Any]):
    """A set that notes what it is asked for; its copies note into the same place."""

    def __init__(self, items: Iterable[Any], seen: set[Any]) -> None:
        super().__init__(items)
        self._seen = seen

    def __contains__(self, item: object) -> bool:
        self._seen.add(item)
        return super().__contains__(item)

    def copy(self) -> "_Watched":
        return _Watched(self, self._seen)
