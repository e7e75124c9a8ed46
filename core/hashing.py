"""Keccak-256, one at a time. Batches go through `core.crypto`."""

import ctypes

from core import native

__all__ = ["EMPTY_CODE_HASH", "EMPTY_LIST_HASH", "EMPTY_TRIE_ROOT", "keccak256"]

_Digest = ctypes.c_char * 32
_Offsets = ctypes.c_uint64 * 2

# Called in place of a Python package's keccak because tries hash thousands of short nodes a block: 1.5 us against 5.
_batch = native.load("warpgrid_core").warpgrid_keccak256_batch


def keccak256(data: bytes) -> bytes:
    """The 32-byte Keccak-256 digest that Ethereum uses (padding 0x01)."""
    digest = _Digest()
    _batch(digest, ctypes.c_char_p(data), _Offsets(0, len(data)), ctypes.c_uint64(1))
    return digest.raw


EMPTY_CODE_HASH = keccak256(b"")
EMPTY_LIST_HASH = keccak256(b"\xc0")
EMPTY_TRIE_ROOT = keccak256(b"\x80")
