"""How a worker's answer to an audit travels: `zk.audit.AuditOpening` to `protos.messages.UnitOpening` and back.

Whatever comes from a worker is read here, once, into arrays of the shapes that the model's layout has; the audit itself
then looks at values only. Version 1; a peer that speaks another is refused before anything is read.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from protos.job_messages import AUDIT_UNITS_MAX, AnswerOpened, Product, UnitOpening
from zk.arithmetic import Ints, ModelShape, trace_shape
from zk.audit import AuditOpening, Unit
from zk.errors import OpeningInvalid
from zk.merkle import Digests, depth_of

__all__ = ["VERSION", "decode_units", "encode_units", "opened_of", "openings_of"]

VERSION: Final = 1

_VALUE_BYTES: Final = (4, 5)
_UNIT_BYTES: Final = 8


def encode_units(units: Sequence[Unit]) -> bytes:
    """Units as a challenge names them."""
    return np.array([(one.position, one.layer) for one in units], "<u4").tobytes()


def decode_units(raw: bytes) -> list[Unit]:
    """The inverse of `encode_units`. Raises OpeningInvalid."""
    if not raw or len(raw) % _UNIT_BYTES or len(raw) > _UNIT_BYTES * AUDIT_UNITS_MAX:
        raise OpeningInvalid(f"a challenge names 1 to {AUDIT_UNITS_MAX} units of {_UNIT_BYTES} bytes, not {len(raw)}")
    return [Unit(position, layer) for position, layer in np.frombuffer(raw, "<u4").reshape(-1, 2).tolist()]


def opened_of(job_id: bytes, position_roots: Digests, openings: Sequence[AuditOpening]) -> AnswerOpened:
    """A worker's whole answer to a challenge."""
    return AnswerOpened(VERSION, job_id, position_roots.tobytes(), tuple(_to_wire(one) for one in openings))


def openings_of(shape: ModelShape, units: Sequence[Unit], opened: AnswerOpened) -> tuple[Digests, list[AuditOpening]]:
    """Position roots u8[positions, 32] and the openings of `units`. Raises OpeningInvalid for what cannot be them."""
    if opened.version != VERSION:
        raise OpeningInvalid(f"openings of version {opened.version} came; this is version {VERSION}")
    if len(opened.openings) != len(units):
        raise OpeningInvalid(f"{len(opened.openings)} openings came, for {len(units)} units")
    roots = _shaped("position roots", opened.position_roots, (-1, 32))
    return roots, [_from_wire(shape, unit, one) for unit, one in zip(units, opened.openings, strict=True)]


def _to_wire(opening: AuditOpening) -> UnitOpening:
    products = tuple(_product(name, values) for name, values in opening.products.items())
    rows = (opening.earlier.tobytes(), opening.paths.tobytes())
    return UnitOpening(opening.leaves.tobytes(), opening.residual, *rows, products)


def _from_wire(shape: ModelShape, unit: Unit, message: UnitOpening) -> AuditOpening:
    layout = trace_shape(shape)
    if len(message.residual) != layout.residual_bytes:
        raise OpeningInvalid(f"the residual row has {len(message.residual)} bytes, expected {layout.residual_bytes}")
    return AuditOpening(
        unit=unit,
        leaves=_shaped("leaves", message.leaves, (layout.leaves, 32)),
        residual=message.residual,
        earlier=_shaped("key-value rows", message.earlier, (-1, layout.key_value_bytes)),
        paths=_shaped("paths", message.paths, (-1, depth_of(layout.leaves), 32)),
        products={one.name: _values(one) for one in message.products},
    )


def _shaped(what: str, raw: bytes, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    try:
        return np.frombuffer(raw, np.uint8).reshape(shape)
    except ValueError as error:
        raise OpeningInvalid(f"the {what} have {len(raw)} bytes, which do not fit the model") from error


def _product(name: str, values: Ints) -> Product:
    """The least width that holds every value: int8 products fit 4 bytes, those of two limbs 5."""
    width = next(one for one in _VALUE_BYTES if np.abs(values).max() < 1 << (8 * one - 1))
    raw = values.astype("<i8").view(np.uint8).reshape(-1, 8)[:, :width]
    return Product(name, width, raw.tobytes())


def _values(product: Product) -> Ints:
    if product.value_bytes not in _VALUE_BYTES:
        raise OpeningInvalid(f"values of {product.value_bytes} bytes came; they have {_VALUE_BYTES}")
    raw = _shaped("products", product.values, (-1, product.value_bytes))
    sign = np.where(raw[:, -1:] >= 128, 255, 0).astype(np.uint8)
    whole = np.concatenate([raw, np.repeat(sign, 8 - product.value_bytes, axis=1)], axis=1)
    return np.ascontiguousarray(whole).view("<i8")[:, 0].astype(np.int64)
