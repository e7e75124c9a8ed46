"""How the tables of specification 1 were made: exact decimal arithmetic, rounded half to even, no libm.

`python -m worker.inference.exact.tables.generate DIRECTORY` writes `exp2.bin` and `sigmoid.bin` anew. Nothing at run
time imports this module; a test compares its output with the shipped bytes.
"""

import sys
from decimal import ROUND_HALF_EVEN, Context, Decimal, localcontext
from pathlib import Path

import numpy as np

__all__ = ["exp2_entries", "main", "sigmoid_entries"]

# Far more than needed: the nearest an entry comes to a rounding boundary is about 2^-13.
DECIMAL_DIGITS = 60


def _round(value: Decimal) -> int:
    return int(value.to_integral_value(ROUND_HALF_EVEN))


def exp2_entries() -> list[int]:
    """4,096 entries: 2^20 * 2^-(i + 1/2)/4096, the mid-point of each step."""
    with localcontext(Context(prec=DECIMAL_DIGITS)):
        ln2 = Decimal(2).ln()
        return [_round(2**20 * (-Decimal(2 * i + 1) / 8192 * ln2).exp()) for i in range(4096)]


def sigmoid_entries() -> list[int]:
    """4,097 entries: 2^16 / (1 + e^-x) for x = i / 128 - 16."""
    with localcontext(Context(prec=DECIMAL_DIGITS)):
        return [_round(65536 / (1 + (Decimal(2048 - i) / 128).exp())) for i in range(4097)]


def main(directory: Path) -> None:
    for name, entries in (("exp2", exp2_entries()), ("sigmoid", sigmoid_entries())):
        (directory / f"{name}.bin").write_bytes(np.array(entries, dtype="<i4").tobytes())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
