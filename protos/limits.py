"""The limits that fields of messages carry in their types, and the types that many messages share.

`protos.rpc` checks them when it decodes. Knows no message.
"""

from dataclasses import dataclass
from typing import Annotated

from core.jobs.request import OUTPUT_TOKENS_MAX

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
    "Tokens",
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
Tokens = Annotated[bytes, SizeMax(4 * OUTPUT_TOKENS_MAX)]
