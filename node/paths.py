"""Where a role keeps what, under its data directory."""

from pathlib import Path

__all__ = ["chain_dir", "challenger_file", "identity_file", "keys_dir"]


def keys_dir(data_dir: Path) -> Path:
    """TLS key and certificates."""
    return data_dir / "keys"


def identity_file(data_dir: Path) -> Path:
    """The node's secp256k1 key."""
    return keys_dir(data_dir) / "identity.key"


def challenger_file(data_dir: Path) -> Path:
    """The key of the account from which a sequencer disputes wrong answers."""
    return keys_dir(data_dir) / "challenger.key"


def chain_dir(data_dir: Path) -> Path:
    """The replica: block log and checkpoint."""
    return data_dir / "chain"
