"""Limits that a peer must keep, as parts of the messages' types; `protos.rpc` checks them when it decodes."""

from dataclasses import dataclass
from typing import Annotated

__all__ = [
    "TEXT_BYTES_MAX",
    "Address",
    "CountMax",
    "Hash",
    "OptionalAddress",
    "OptionalHash",
    "Signature",
    "Size",
    "SizeMax",
    "Text",
]

TEXT_BYTES_MAX = 1024


@dataclass(frozen=True, slots=True)
class Size:
    """Exactly this many bytes; `or_empty` permits none at all."""

    bytes: int
    or_empty: bool = False


@dataclass(frozen=True, slots=True)
class SizeMax:
    """At most this many bytes (of UTF-8, for text)."""

    bytes: int


@dataclass(frozen=True, slots=True)
class CountMax:
    """At most this many elements."""

    count: int


Hash = Annotated[bytes, Size(32)]
OptionalHash = Annotated[bytes, Size(32, or_empty=True)]
Address = Annotated[bytes, Size(20)]
OptionalAddress = Annotated[bytes, Size(20, or_empty=True)]
Signature = Annotated[bytes, Size(65)]
Text = Annotated[str, SizeMax(TEXT_BYTES_MAX)]
