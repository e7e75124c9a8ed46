"""Whose data a folder holds. Every file of a replica names it, so that one chain's files never serve another."""

from dataclasses import dataclass

from core.genesis import Genesis

__all__ = ["IDENTITY_BYTES", "ChainIdentity"]

IDENTITY_BYTES = 40


@dataclass(frozen=True, slots=True)
class ChainIdentity:
    """The chain id and the genesis block's hash: the hash does not cover the id."""

    chain_id: int
    genesis_hash: bytes

    @classmethod
    def of(cls, genesis: Genesis) -> "ChainIdentity":
        return cls(genesis.config.chain_id, genesis.block.hash)

    @classmethod
    def from_bytes(cls, raw: bytes) -> "ChainIdentity":
        return cls(int.from_bytes(raw[:8], "big"), raw[8:])

    def to_bytes(self) -> bytes:
        return self.chain_id.to_bytes(8, "big") + self.genesis_hash

    def __str__(self) -> str:
        return f"chain {self.chain_id} with genesis 0x{self.genesis_hash.hex()}"
