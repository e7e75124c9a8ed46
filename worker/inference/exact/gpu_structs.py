"""What kernels of attention are told in structs: the layouts of attention.cuh and heads.cuh.

Knows addresses and sizes, not what is launched with them.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["ATTENTION", "HEADS", "struct_of"]

ATTENTION: Final = np.dtype(
    [
        *(
            (name, "u8")
            for name in (
                *("cache", "queries", "query_max", "page_table", "position", "sequence", "tile_row", "scores"),
                *("score_max", "reach_max", "denominator", "numerator", "exp2"),
            )
        ),
        *(
            (name, "u4")
            for name in (
                "layers",
                "heads",
                "kv_heads",
                "head_width",
                "pages_per_sequence",
                "score_stride",
                "split_positions",
                "unused",
            )
        ),
        *((name, "i4") for name in ("attention_mantissa", "attention_exponent")),
    ]
)
"""struct Attention of attention.cuh."""

_HEADS_POINTERS: Final = (
    *("query_norm", "key_norm", "cosines", "sines", "queries", "query_max", "cache", "page_table"),
    *("position", "sequence", "kv_rows"),
)
HEADS: Final = np.dtype(
    [
        *((name, "u8") for name in (*_HEADS_POINTERS, "epsilon_q48")),
        *((name, "u4") for name in ("layers", "heads", "kv_heads", "head_width", "pages_per_sequence", "hadamard")),
    ]
)
"""struct Heads of heads.cuh."""


def struct_of(layout: np.dtype[np.void], arrays: Mapping[str, Any], numbers: Mapping[str, int]) -> NDArray[np.void]:
    """One struct: addresses of the arrays that it names, and numbers."""
    struct = np.zeros(1, layout)
    for name in layout.names or ():
        if name in numbers:
            struct[name] = numbers[name]
        elif name in arrays:
            struct[name] = arrays[name].data.ptr
    return struct
