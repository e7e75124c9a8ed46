"""Hand-written stand-ins for what the sequencer meets: a clock, keys, and signed transactions."""

from dataclasses import dataclass, field, replace

from coincurve import PrivateKey

from core.hashing import keccak256
from core.transaction import Transaction, TransactionType, encode_transaction, signing_hash

__all__ = ["CHAIN_ID", "GWEI", "ManualClock", "Wallet", "transfer"]

CHAIN_ID = 7_357
GWEI = 10**9


@dataclass
class ManualClock:
    """Time that moves when a test says so. `sleep` moves it and yields nothing else."""

    now_s: float = 1_700_000_000.0
    slept_s: list[float] = field(default_factory=list)

    def time_s(self) -> int:
        return int(self.now_s)

    def monotonic_s(self) -> float:
        return self.now_s

    async def sleep(self, duration_s: float) -> None:
        self.slept_s.append(duration_s)
        self.now_s += duration_s


class Wallet:
    """A key made from a number, and what it signs."""

    def __init__(self, number: int) -> None:
        self._key = PrivateKey(keccak256(b"wallet %d" % number))
        self.address = keccak256(self._key.public_key.format(compressed=False)[1:])[12:]

    def sign(self, tx: Transaction) -> Transaction:
        signature = self._key.sign_recoverable(signing_hash(tx), hasher=None)
        r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:64], "big")
        return replace(tx, y_parity=signature[64], r=r, s=s)

    def raw(self, tx: Transaction) -> bytes:
        return encode_transaction(self.sign(tx))


def transfer(nonce: int, **fields: object) -> Transaction:
    """An unsigned type 2 transfer; any field can be given."""
    defaults: dict[str, object] = {
        "type": TransactionType.FEE_MARKET,
        "chain_id": CHAIN_ID,
        "nonce": nonce,
        "gas_limit": 21_000,
        "max_fee_per_gas": 10 * GWEI,
        "max_priority_fee_per_gas": GWEI,
        "to": b"\x22" * 20,
        "value": 1,
        "data": b"",
        "y_parity": 0,
        "r": 0,
        "s": 0,
    }
    return Transaction(**{**defaults, **fields})  # type: ignore[arg-type]
