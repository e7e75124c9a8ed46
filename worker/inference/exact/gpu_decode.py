"""A decoding step of a few rows as one launch: the structs that worker/inference/native/gpu/decode.cu reads.

Owns which batches qualify and how shared memory is divided. Allocates only the structs.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from worker.inference.exact.gpu_pass import ATTENTION, HEADS, BatchStructs, DeviceModel, Matrix, Shape
from worker.inference.exact.specification import Header

__all__ = ["DECODE_THREADS", "ROWS_MAX", "decode_shared_bytes", "decode_step", "decodes", "layer_views"]

DECODE_THREADS: Final = 288  # decode.cu, as is all that follows
_STAGE_BYTES: Final = 16_384
_STAGES_MIN: Final = 4
_STAGES_MAX: Final = 14
_ACTIVATION_ROWS_MAX: Final = 8
_HEADS_MAX: Final = 512
_SHARED_BYTES: Final = 222_208  # of a multiprocessor, beside what the kernel declares
_ALIGNMENT_BYTES: Final = 1_024
_K_BLOCK: Final = 128

ROWS_MAX: Final = 4
"""Rows up to which one launch is faster than one for each operation."""

_MATRIX: Final = np.dtype(
    [
        *((name, "u8") for name in ("weights", "mantissa", "row_shift", "bias")),
        *((name, "u4") for name in ("outputs", "columns", "bits", "unused")),
    ]
)
_LAYER: Final = np.dtype(
    [*((name, _MATRIX) for name in ("qkv", "o", "gate_up", "down")), ("query_norm", "u8"), ("key_norm", "u8")]
)
_STEP: Final = np.dtype(
    [
        *(("layer", "u8"), ("head", _MATRIX), ("attention", ATTENTION), ("heads", HEADS)),
        *((name, "u8") for name in ("embedding", "embedding_mantissa", "embedding_exponent", "token", "sigmoid")),
        *((name, "u8") for name in ("residual", "values", "hidden", "hidden_max", "logits", "best", "boundaries")),
        ("arrivals", "u8"),
        *((name, "u4") for name in ("rows", "layers", "width", "feed_forward", "vocabulary", "splits", "stages")),
        *(("unused", "u4"), ("residual_fraction", "i4"), ("hidden_fraction", "i4")),
    ]
)


def _input_bytes(header: Header, rows: int) -> int:
    """Room for the widest quantised input of `rows` rows."""
    inputs = (
        *((header.model_width, bits) for bits in (header.qkv_bits, header.gate_up_bits, header.head_bits)),
        *((header.attention_width, header.o_bits), (header.feed_forward_width, header.down_bits)),
    )
    return max(rows * bits // 8 * -(-columns // _K_BLOCK) * _K_BLOCK for columns, bits in inputs)


def _stages(header: Header, rows: int) -> int:
    return min(_STAGES_MAX, (_SHARED_BYTES - _ALIGNMENT_BYTES - _input_bytes(header, rows)) // _STAGE_BYTES)


def decodes(header: Header, shape: Shape) -> bool:
    """Whether decode.cu takes a batch of this shape, and is the faster way."""
    bits = max(header.qkv_bits, header.o_bits, header.gate_up_bits, header.down_bits, header.head_bits)
    return (
        shape.answers
        and shape.rows <= ROWS_MAX
        and shape.rows * bits // 8 <= _ACTIVATION_ROWS_MAX
        and shape.rows * header.heads <= _HEADS_MAX
        and _stages(header, shape.rows) >= _STAGES_MIN
    )


def decode_shared_bytes(header: Header, rows: int) -> int:
    return _stages(header, rows) * _STAGE_BYTES + _input_bytes(header, rows) + _ALIGNMENT_BYTES


def layer_views(model: DeviceModel) -> Any:
    """struct LayerView[layers], on the device."""
    views = np.zeros(len(model.layers), _LAYER)
    for view, layer in zip(views, model.layers, strict=True):
        for name in ("qkv", "o", "gate_up", "down"):
            _set_matrix(view[name], getattr(layer, name))
        if layer.query_norm is not None:
            view["query_norm"], view["key_norm"] = layer.query_norm.data.ptr, layer.key_norm.data.ptr
    return model.put(views.view(np.uint8))


def decode_step(
    model: DeviceModel, layers: Any, buffers: Mapping[str, Any], shape: Shape, structs: BatchStructs
) -> NDArray[np.void]:
    """struct Step of a batch; `layers` is `layer_views`."""
    header = model.header
    step = np.zeros(1, _STEP)
    _set_matrix(step["head"][0], model.head)
    step["attention"], step["heads"] = structs.attention, structs.heads
    if shape.traced:
        step["heads"]["kv_rows"] = buffers["kv_rows"].data.ptr
    arrays = {
        **{
            name: buffers[name] for name in ("residual", "values", "hidden", "hidden_max", "logits", "best", "arrivals")
        },
        **{"layer": layers, "embedding": model.embedding, "embedding_mantissa": model.embedding_mantissa},
        **{"embedding_exponent": model.embedding_exponent, "sigmoid": model.sigmoid, "token": structs.token},
        **({"boundaries": buffers["boundaries"]} if shape.traced else {}),
    }
    for name, array in arrays.items():
        step[name] = array.data.ptr
    numbers = {
        **{"rows": shape.rows, "layers": header.layers, "width": header.model_width},
        **{"feed_forward": header.feed_forward_width, "vocabulary": header.vocabulary, "splits": structs.splits},
        **{"stages": _stages(header, shape.rows), "residual_fraction": header.residual_fraction},
        "hidden_fraction": header.hidden_fraction,
    }
    for name, number in numbers.items():
        step[name] = number
    return step


def _set_matrix(view: Any, matrix: Matrix) -> None:
    view["weights"], view["mantissa"] = matrix.weights.data.ptr, matrix.mantissa.data.ptr
    view["row_shift"] = matrix.row_shift.data.ptr
    view["bias"] = 0 if matrix.bias is None else matrix.bias.data.ptr
    view["outputs"], view["columns"], view["bits"] = matrix.outputs, matrix.columns, matrix.bits
