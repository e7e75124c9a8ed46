"""Which kernel multiplies, in what tiles, and how its operands are padded.

Owns the shapes of worker/inference/native/gpu/matmul.cuh and layout.cuh. Knows nothing of models or launches.
"""

from typing import Final, NamedTuple

__all__ = ["PRODUCTS", "Product", "packed_shape", "padded", "product_plan", "quantised_bytes"]

_K_BLOCK: Final = 128  # layout.cuh
_ALIGNMENT_BYTES: Final = 1024
_TILE_OUTPUTS: Final = 128  # matmul.cuh
_PADDED_OUTPUTS: Final = 2 * _TILE_OUTPUTS  # of a cluster
_PADDED_ROWS: Final = 256  # of the largest tile
_TENSORPRODUCTS_PER_CLOCK: Final = 4096  # of a multiprocessor, as is the next
_L2_BYTES_PER_CLOCK: Final = 27
_START_BYTES: Final = 16_384  # what a multiprocessor could read while a tile starts
_SPLITS_MAX: Final = 8  # rows.cuh
_BLOCKS_OF_SPLIT_MIN: Final = 4


class Product(NamedTuple):
    """A kernel of matmul.cuh: rows of its tile, stages of its ring, blocks of a cluster."""

    name: str
    rows: int
    stages: int
    cluster: int

    @property
    def shared_bytes(self) -> int:
        return (_TILE_OUTPUTS + self.rows) * _K_BLOCK * self.stages + _ALIGNMENT_BYTES

    @property
    def step_clocks(self) -> float:
        """What one block of K takes: by the tensor cores, or to arrive from the L2 cache."""
        fetched_bytes = (_TILE_OUTPUTS + self.rows / self.cluster) * _K_BLOCK
        return max(
            _TILE_OUTPUTS * self.rows * _K_BLOCK / _TENSORPRODUCTS_PER_CLOCK, fetched_bytes / _L2_BYTES_PER_CLOCK
        )

    def tiles(self, rows: int, outputs: int) -> int:
        """Units of work that one cluster does."""
        return -(-rows // self.rows) * -(-outputs // (_TILE_OUTPUTS * self.cluster))


PRODUCTS: Final = (
    Product("product_8", 8, 6, 1),
    Product("product_16", 16, 6, 1),
    Product("product_32", 32, 5, 1),
    Product("product_64", 64, 4, 1),
    Product("product_128", 128, 6, 2),
    Product("product_256", 256, 4, 2),
)


def padded(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple


def packed_shape(outputs: int, columns: int) -> tuple[int, int]:
    """Rows and columns of a weight matrix as layout.cuh has it."""
    return padded(outputs, _PADDED_OUTPUTS), padded(columns, _K_BLOCK)


def quantised_bytes(rows: int, columns: int) -> int:
    """Room for `rows` activation rows, limbs counted, as layout.cuh has them."""
    return padded(rows, _PADDED_ROWS) * padded(columns, _K_BLOCK)


def product_plan(rows: int, outputs: int, columns: int, processors: int) -> tuple[Product, int]:
    """(kernel, splits of K) for a matrix product with `rows` activation rows.

    The smallest tile that holds all rows, or of the two largest the one that needs less time; K is split where the
    tiles alone would leave multiprocessors idle.
    """
    kernel = next((one for one in PRODUCTS if rows <= one.rows), PRODUCTS[-1])
    slots = processors // kernel.cluster
    if rows > PRODUCTS[-2].rows:
        kernel = min(PRODUCTS[-2:], key=lambda one: -(-one.tiles(rows, outputs) // slots) * one.step_clocks)

    def cost(splits: int) -> float:
        """Bytes that the busiest multiprocessor moves: tiles in, sums out and in again, a start for each."""
        waves = -(-kernel.tiles(rows, outputs) * splits // slots)
        tile_bytes = (_TILE_OUTPUTS + kernel.rows) * columns / splits + _START_BYTES
        return waves * tile_bytes + splits * 8 * rows * outputs / processors

    most = max(1, min(_SPLITS_MAX, -(-columns // _K_BLOCK) // _BLOCKS_OF_SPLIT_MIN))
    return kernel, min(range(1, most + 1), key=cost)
