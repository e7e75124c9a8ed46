"""What travels in an audit of an exact answer: the challenge, and the openings that answer it (zk/openings.py reads them).

Each class mirrors the message of the same name in protos/warpgrid/v1/jobs.proto, as in `protos.messages`.
"""

from dataclasses import dataclass
from typing import Annotated

from core.jobs.request import JobRequest
from protos.limits import CountMax, Hash, SizeMax, Text, Tokens

__all__ = ["AUDIT_UNITS_MAX", "AnswerOpened", "OpenAnswer", "Product", "UnitOpening"]

AUDIT_UNITS_MAX = 64

# The largest model of docs/exact-inference.md, section 2.
_LEAVES_BYTES_MAX = 32 * 1024
_RESIDUAL_BYTES_MAX = 4 * 16_384
_PRODUCT_BYTES_MAX = 5 * 262_144
_EARLIER_BYTES_MAX = 32 * 1024 * 1024
_POSITION_ROOTS_BYTES_MAX = 32 * 131_072


@dataclass(frozen=True, slots=True)
class OpenAnswer:
    version: int
    job_id: Hash
    request: JobRequest
    salt: Hash
    model_hash: Hash
    answer: Tokens
    units: Annotated[bytes, SizeMax(8 * AUDIT_UNITS_MAX)]
    deadline_ms: int


@dataclass(frozen=True, slots=True)
class Product:
    name: Text
    value_bytes: int
    values: Annotated[bytes, SizeMax(_PRODUCT_BYTES_MAX)]


@dataclass(frozen=True, slots=True)
class UnitOpening:
    leaves: Annotated[bytes, SizeMax(_LEAVES_BYTES_MAX)]
    residual: Annotated[bytes, SizeMax(_RESIDUAL_BYTES_MAX)]
    earlier: Annotated[bytes, SizeMax(_EARLIER_BYTES_MAX)]
    paths: Annotated[bytes, SizeMax(_EARLIER_BYTES_MAX)]
    products: Annotated[tuple[Product, ...], CountMax(4)]


@dataclass(frozen=True, slots=True)
class AnswerOpened:
    version: int
    job_id: Hash
    position_roots: Annotated[bytes, SizeMax(_POSITION_ROOTS_BYTES_MAX)]
    openings: Annotated[tuple[UnitOpening, ...], CountMax(AUDIT_UNITS_MAX)]
