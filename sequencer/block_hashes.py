"""Hashes of recent blocks, which the BLOCKHASH instruction and EIP-2935 need, kept so that they are read once."""

from core.chain import ChainReader
from core.chain_rules import BLOCK_HASHES_MAX

__all__ = ["BlockHashes"]

_KEPT_MAX = 16 * BLOCK_HASHES_MAX


class BlockHashes:
    """Answers the ancestors' hashes of any block of a chain that is never reorganised."""

    def __init__(self, chain: ChainReader) -> None:
        self._chain = chain
        self._by_number: dict[int, bytes] = {}

    def before(self, number: int) -> tuple[bytes, ...]:
        """The hashes of up to 256 blocks below block `number`, its parent's last."""
        return self.between(max(0, number - BLOCK_HASHES_MAX), number - 1)

    def between(self, first: int, last: int) -> tuple[bytes, ...]:
        """The hashes of blocks `first` to `last`, both of the chain."""
        return tuple(self._hash(one) for one in range(first, last + 1))

    def _hash(self, number: int) -> bytes:
        if number not in self._by_number:
            if len(self._by_number) >= _KEPT_MAX:
                self._by_number.clear()
            hashes = self._chain.block_hashes(number + 1)
            self._by_number.update(zip(range(number, -1, -1), reversed(hashes), strict=False))
        return self._by_number[number]
