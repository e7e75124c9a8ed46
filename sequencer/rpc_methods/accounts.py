"""eth_: balances, nonces, code, storage and proofs."""

from collections.abc import Mapping
from typing import Any

from core.hashing import EMPTY_CODE_HASH, EMPTY_TRIE_ROOT
from core.state import EMPTY_ACCOUNT, Account
from core.state_trie import SlotProof
from sequencer.jsonrpc.errors import RpcError, invalid_params
from sequencer.jsonrpc.hexadecimal import HexError, data, is_hexadecimal, quantity, read_fixed
from sequencer.jsonrpc.method import Json, Method, heavy, light
from sequencer.jsonrpc.parameters import LATEST, Parameters
from sequencer.rpc_methods.services import Services

__all__ = ["AccountMethods"]

_CLIENT_LIMIT_EXCEEDED = -38026


class AccountMethods:
    """What one state holds."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._view = services.view

    def methods(self) -> Mapping[str, Method]:
        """Name to method."""
        return {
            "eth_getBalance": light(self.balance),
            "eth_getTransactionCount": light(self.transaction_count),
            "eth_getCode": light(self.code),
            "eth_getStorageAt": light(self.storage_at),
            "eth_getStorageValues": light(self.storage_values),
            "eth_getProof": heavy(self.proof),
        }

    def balance(self, parameters: Parameters) -> Json:
        parameters.at_most(2)
        return quantity(self._account(parameters).balance)

    def transaction_count(self, parameters: Parameters) -> Json:
        parameters.at_most(2)
        if parameters.block(1).tag == "pending":
            return quantity(self._services.mempool.next_nonce(parameters.address(0)))
        return quantity(self._account(parameters).nonce)

    def code(self, parameters: Parameters) -> Json:
        parameters.at_most(2)
        account = self._account(parameters)
        if account.code_hash == EMPTY_CODE_HASH:
            return "0x"
        return data(self._view.state(parameters.block(1)).code(account.code_hash))

    def storage_at(self, parameters: Parameters) -> Json:
        parameters.at_most(3)
        address = parameters.address(0)
        slot, _ = _read_slot(parameters.string(1))
        return data(_word(self._view.state(parameters.block(2)).storage(address, slot)))

    def storage_values(self, parameters: Parameters) -> Json:
        parameters.at_most(2)
        wanted = parameters.read(0, _read_storage_request)
        count = sum(map(len, wanted.values()))
        if count > self._services.limits.storage_slots_max:
            message = f"too many slots (max {self._services.limits.storage_slots_max})"
            raise RpcError(_CLIENT_LIMIT_EXCEEDED, message)
        if count == 0:
            raise invalid_params("empty request")
        state = self._view.state(parameters.block(1))
        return {
            data(address): [data(_word(state.storage(address, slot))) for slot in slots]
            for address, slots in wanted.items()
        }

    def proof(self, parameters: Parameters) -> Json:
        parameters.at_most(3)
        address = parameters.address(0)
        keys = [_read_slot(key) for key in parameters.read(1, _read_strings)]
        if len(keys) > self._services.limits.proof_keys_max:
            raise invalid_params(f"too many keys (max {self._services.limits.proof_keys_max})")
        state = self._services.chain.state(self._view.need(parameters.block(2)).number)
        found = state.proof(address, [slot for slot, _ in keys])
        account = found.account or Account(0, 0, EMPTY_CODE_HASH, EMPTY_TRIE_ROOT)
        return {
            "address": data(address),
            "accountProof": [data(node) for node in found.proof],
            "balance": quantity(account.balance),
            "codeHash": data(account.code_hash),
            "nonce": quantity(account.nonce),
            "storageHash": data(account.storage_root),
            "storageProof": [
                _slot_json(slot, is_word=is_word) for slot, (_, is_word) in zip(found.slots, keys, strict=True)
            ],
        }

    def _account(self, parameters: Parameters) -> Account:
        address, reference = parameters.address(0), parameters.block(1) if len(parameters) > 1 else LATEST
        return self._view.state(reference).account(address) or EMPTY_ACCOUNT


def _slot_json(slot: SlotProof, *, is_word: bool) -> Json:
    """A slot's proof; its key is written as it was asked for: as a 32-byte word, or as a quantity."""
    return {
        "key": data(_word(slot.slot)) if is_word else quantity(slot.slot),
        "value": quantity(slot.value),
        "proof": [data(node) for node in slot.proof],
    }


def _read_slot(text: str) -> tuple[int, bool]:
    """A storage key of up to 32 bytes, and whether it had all 32. As in geth, 0x and a leading zero may be missing."""
    digits = text[2:] if text[:2] in ("0x", "0X") else text
    digits = "0" * (len(digits) % 2) + digits
    if len(digits) > 64:
        raise invalid_params(f'storage key too long (want at most 32 bytes): "{text[:200]}"')
    if not is_hexadecimal(digits):
        raise invalid_params(f'invalid hex in storage key: "{text}"')
    return int(digits or "0", 16), len(digits) == 64


def _read_storage_request(value: Any) -> dict[bytes, list[int]]:
    if not isinstance(value, dict):
        raise HexError("expected an object of addresses to lists of storage keys")
    return {
        read_fixed(address, 20): [int.from_bytes(read_fixed(key, 32), "big") for key in _read_strings(keys)]
        for address, keys in value.items()
    }


def _read_strings(value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise HexError("expected an array of strings")
    return value


def _word(value: int) -> bytes:
    return value.to_bytes(32, "big")
