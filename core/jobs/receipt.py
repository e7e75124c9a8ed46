"""A worker's signed statement of what it did for a job, as EIP-712 typed data.

market/contracts/Receipts.sol is its twin: struct hash, digest and checks agree bit for bit. Knows nothing of batches
(`market.receipt_tree`) or of who may be paid (`market.contracts`).
"""

from dataclasses import dataclass, fields

from coincurve import PrivateKey

from core.errors import InvalidInput, TransactionError
from core.hashing import keccak256
from core.jobs.request import Tier
from core.signature import recover_address

__all__ = ["SIGNATURE_BYTES", "Receipt", "ReceiptDomain", "ReceiptInvalid", "recover_signer", "sign_receipt"]

SIGNATURE_BYTES = 65

_DOMAIN_TYPE = b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
_DOMAIN_NAME = b"Warpgrid JobEscrow"
_DOMAIN_VERSION = b"1"

# Field, Solidity name, Solidity type: the order is that of the struct.
_LAYOUT = (
    ("job_id", "jobId", "bytes32"),
    ("worker", "worker", "address"),
    ("tier", "tier", "uint8"),
    ("model_hash", "modelHash", "bytes32"),
    ("request_hash", "requestHash", "bytes32"),
    ("output_hash", "outputHash", "bytes32"),
    ("trace_root", "traceRoot", "bytes32"),
    ("input_tokens", "inputTokens", "uint32"),
    ("output_tokens", "outputTokens", "uint32"),
    ("started_at_ms", "startedAtMs", "uint64"),
    ("finished_at_ms", "finishedAtMs", "uint64"),
    ("input_token_wei", "inputTokenWei", "uint128"),
    ("output_token_wei", "outputTokenWei", "uint128"),
    ("total_wei", "totalWei", "uint128"),
)
_TYPE = "Receipt(" + ",".join(f"{solidity_type} {name}" for _, name, solidity_type in _LAYOUT) + ")"
_TYPE_HASH = keccak256(_TYPE.encode())
_NO_TRACE = bytes(32)


class ReceiptInvalid(InvalidInput):
    """A receipt that contradicts itself, or a signature that is none."""

    code = "invalid_receipt"


@dataclass(frozen=True, slots=True)
class ReceiptDomain:
    """Where a receipt counts: one chain, one escrow contract (20 bytes). Elsewhere the same signature is void."""

    chain_id: int
    escrow: bytes

    def separator(self) -> bytes:
        """EIP-712 domain separator."""
        words = (keccak256(_DOMAIN_TYPE), keccak256(_DOMAIN_NAME), keccak256(_DOMAIN_VERSION))
        return keccak256(b"".join(words) + self.chain_id.to_bytes(32, "big") + self.escrow.rjust(32, b"\0"))


@dataclass(frozen=True, slots=True)
class Receipt:
    """What was answered, with what, at which price. Hashes are 32 bytes, `worker` the 20-byte account that staked.

    Times are Unix milliseconds, prices wei per token. `trace_root` is zero for the float tier and only there. Raises
    ReceiptInvalid on construction when a field is out of range or the total is not usage times price.
    """

    job_id: bytes
    worker: bytes
    tier: Tier
    model_hash: bytes
    request_hash: bytes
    output_hash: bytes
    trace_root: bytes
    input_tokens: int
    output_tokens: int
    started_at_ms: int
    finished_at_ms: int
    input_token_wei: int
    output_token_wei: int
    total_wei: int

    def __post_init__(self) -> None:
        for name, _, solidity_type in _LAYOUT:
            _require_type(name, getattr(self, name), solidity_type)
        if (self.trace_root != _NO_TRACE) != (self.tier == Tier.EXACT):
            raise ReceiptInvalid("trace_root must be zero for the float tier, and only there")
        if self.started_at_ms > self.finished_at_ms:
            raise ReceiptInvalid(f"finished at {self.finished_at_ms} ms, before its start at {self.started_at_ms} ms")
        total = self.input_tokens * self.input_token_wei + self.output_tokens * self.output_token_wei
        if self.total_wei != total:
            raise ReceiptInvalid(f"total_wei is {self.total_wei}, but usage times price is {total}")

    def struct_hash(self) -> bytes:
        """EIP-712 hash of the struct."""
        return keccak256(_TYPE_HASH + b"".join(_word(getattr(self, name)) for name, _, _ in _LAYOUT))

    def digest(self, domain: ReceiptDomain) -> bytes:
        """What the worker signs."""
        return keccak256(b"\x19\x01" + domain.separator() + self.struct_hash())

    def solidity(self) -> tuple[bytes | int, ...]:
        """The struct as an ABI encoder takes it."""
        return tuple(getattr(self, name) for name, _, _ in _LAYOUT)

    @classmethod
    def from_solidity(cls, values: tuple[bytes | int, ...]) -> "Receipt":
        """The inverse of `solidity`, for what an ABI decoder returns.

        Raises ReceiptInvalid when the values are not those of a receipt.
        """
        if len(values) != len(_LAYOUT):
            raise ReceiptInvalid(f"a receipt has {len(_LAYOUT)} fields, not {len(values)}")
        named = dict(zip((name for name, _, _ in _LAYOUT), values, strict=True))
        try:
            named["tier"] = Tier(int(named["tier"]))
        except ValueError as error:
            raise ReceiptInvalid(str(error)) from error
        return cls(**named)  # type: ignore[arg-type]

    def typed_data(self, domain: ReceiptDomain) -> dict[str, object]:
        """The same in the JSON form that eth_signTypedData_v4 and wallets take, for clients that co-sign."""
        message = {name: _json(getattr(self, field)) for field, name, _ in _LAYOUT}
        receipt_type = [{"name": name, "type": solidity_type} for _, name, solidity_type in _LAYOUT]
        domain_type = [("name", "string"), ("version", "string"), ("chainId", "uint256")]
        return {
            "types": {
                "EIP712Domain": [
                    *({"name": name, "type": kind} for name, kind in domain_type),
                    {"name": "verifyingContract", "type": "address"},
                ],
                "Receipt": receipt_type,
            },
            "primaryType": "Receipt",
            "domain": {
                "name": _DOMAIN_NAME.decode(),
                "version": _DOMAIN_VERSION.decode(),
                "chainId": domain.chain_id,
                "verifyingContract": _json(domain.escrow),
            },
            "message": message,
        }


assert tuple(field.name for field in fields(Receipt)) == tuple(name for name, _, _ in _LAYOUT)


def sign_receipt(receipt: Receipt, domain: ReceiptDomain, key: PrivateKey) -> bytes:
    """r, s and v (27 or 28) of the worker's signature: 65 bytes."""
    signature = key.sign_recoverable(receipt.digest(domain), hasher=None)
    return signature[:64] + bytes([27 + signature[64]])


def recover_signer(receipt: Receipt, domain: ReceiptDomain, signature: bytes) -> bytes:
    """The 20-byte address that signed. Raises ReceiptInvalid for a signature that no key can have made."""
    if len(signature) != SIGNATURE_BYTES:
        raise ReceiptInvalid(f"the signature has {len(signature)} bytes, expected {SIGNATURE_BYTES}")
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:64], "big")
    try:
        return recover_address(receipt.digest(domain), signature[64] - 27, r, s)
    except TransactionError as error:
        raise ReceiptInvalid(str(error)) from error


def _require_type(name: str, value: bytes | int, solidity_type: str) -> None:
    if solidity_type.startswith("uint"):
        bits = int(solidity_type.removeprefix("uint"))
        if not isinstance(value, int) or not 0 <= value < 2**bits:
            raise ReceiptInvalid(f"{name} is {value!r}, expected an integer of at most {bits} bits")
        return
    size = 20 if solidity_type == "address" else 32
    if not isinstance(value, bytes) or len(value) != size:
        raise ReceiptInvalid(f"{name} must be {size} bytes")


def _word(value: bytes | int) -> bytes:
    return value.to_bytes(32, "big") if isinstance(value, int) else value.rjust(32, b"\0")


def _json(value: bytes | int) -> str | int:
    return value if isinstance(value, int) else "0x" + value.hex()
