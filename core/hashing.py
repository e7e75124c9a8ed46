"""Keccak-256, one at a time. Batches go through `core.crypto`."""

from Crypto.Hash import keccak

__all__ = ["EMPTY_CODE_HASH", "EMPTY_LIST_HASH", "EMPTY_TRIE_ROOT", "keccak256"]


def keccak256(data: bytes) -> bytes:
    """The 32-byte Keccak-256 digest that Ethereum uses (padding 0x01)."""
    return keccak.new(digest_bits=256, data=data).digest()


EMPTY_CODE_HASH = keccak256(b"")
EMPTY_LIST_HASH = keccak256(b"\xc0")
EMPTY_TRIE_ROOT = keccak256(b"\x80")
