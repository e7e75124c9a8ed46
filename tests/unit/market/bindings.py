"""A signer's proof for WorkerRegistry, made by eth-account from the typed data alone: it shares no code with ours."""

from eth_account import Account as EthAccount
from eth_account.messages import encode_typed_data

from market.contracts import REGISTRY_ADDRESS

__all__ = ["signed_binding"]


def signed_binding(worker: bytes, secret: bytes, chain_id: int) -> bytes:
    """65 bytes: the key `secret` signs for `worker` (20 bytes) on this chain."""
    typed = {
        "types": {
            "EIP712Domain": [
                {"name": "name", "type": "string"},
                {"name": "version", "type": "string"},
                {"name": "chainId", "type": "uint256"},
                {"name": "verifyingContract", "type": "address"},
            ],
            "SignerBinding": [{"name": "worker", "type": "address"}],
        },
        "primaryType": "SignerBinding",
        "domain": {
            "name": "Warpgrid WorkerRegistry",
            "version": "1",
            "chainId": chain_id,
            "verifyingContract": "0x" + REGISTRY_ADDRESS.hex(),
        },
        "message": {"worker": "0x" + worker.hex()},
    }
    return bytes(EthAccount.sign_message(encode_typed_data(full_message=typed), secret).signature)
