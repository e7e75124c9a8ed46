"""The state as Merkle Patricia tries: what a `StateDifference` does to them, and proofs (Yellow Paper, 4.1; EIP-1186).

Accounts stand under the hash of their address in one trie, slots under the hash of their number in one trie an account.
Knows neither where nodes are stored nor how old states are kept.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from core import rlp, trie
from core.errors import ProofError, RlpError
from core.hashing import EMPTY_CODE_HASH, EMPTY_TRIE_ROOT, keccak256
from core.state import Account, AccountChange, StateDifference, StateReader

__all__ = [
    "ACCOUNTS_OWNER",
    "AccountProof",
    "ProvableState",
    "SlotProof",
    "StateNodes",
    "StateUpdate",
    "decode_account",
    "encode_account",
    "prove_account",
    "update_state",
    "verify_account_proof",
]

ACCOUNTS_OWNER = b""
"""The owner of the accounts trie's nodes; a storage trie is owned by the 32-byte hash of its account's address."""


class StateNodes(Protocol):
    """One version of the state's accounts and trie nodes."""

    def account(self, address: bytes) -> Account | None:
        """The account, or None where there is none."""

    def node(self, owner: bytes, path: str) -> bytes | None:
        """The node at `path` of the trie of `owner` (see `core.trie.NodeReader`)."""


@dataclass(slots=True)
class StateUpdate:
    """What a difference changes in a store. `accounts` carry their new storage roots.

    `nodes` maps (owner, path) to the new node, None where it is gone. Before they are written, every node of the owners
    in `cleared` goes.
    """

    root: bytes
    accounts: dict[bytes, Account | None] = field(default_factory=dict)
    nodes: dict[tuple[bytes, str], bytes | None] = field(default_factory=dict)
    cleared: list[bytes] = field(default_factory=list)


def encode_account(account: Account) -> bytes:
    """The value of an account in the accounts trie."""
    return rlp.encode_list(
        rlp.encode_bytes(rlp.encode_int(account.nonce))
        + rlp.encode_bytes(rlp.encode_int(account.balance))
        + b"\xa0"
        + account.storage_root
        + b"\xa0"
        + account.code_hash
    )


def decode_account(raw: bytes) -> Account:
    """The inverse of `encode_account`. Raises RlpError."""
    nonce, balance, storage_root, code_hash = rlp.read_list(rlp.decode(raw), "account", range(4, 5))
    return Account(
        nonce=rlp.read_int(nonce, "nonce", 64),
        balance=rlp.read_int(balance, "balance"),
        code_hash=rlp.read_fixed(code_hash, "codeHash", 32),
        storage_root=rlp.read_fixed(storage_root, "storageRoot", 32),
    )


def update_state(nodes: StateNodes, difference: StateDifference) -> StateUpdate:
    """Apply a difference to the tries: first each changed storage trie, then the accounts trie over them."""
    result = StateUpdate(EMPTY_TRIE_ROOT)
    leaves: dict[bytes, bytes | None] = {}
    for address, change in difference.changes():
        owner = keccak256(address)
        account = _updated_account(nodes, address, owner, change, result)
        result.accounts[address] = account
        leaves[owner] = None if account is None else encode_account(account)
    update = trie.update(lambda path: nodes.node(ACCOUNTS_OWNER, path), leaves)
    result.nodes.update(((ACCOUNTS_OWNER, path), raw) for path, raw in update.nodes.items())
    result.root = update.root
    return result


def _updated_account(
    nodes: StateNodes, address: bytes, owner: bytes, change: AccountChange, result: StateUpdate
) -> Account | None:
    before = nodes.account(address)
    storage_root = EMPTY_TRIE_ROOT if before is None else before.storage_root
    if storage_root != EMPTY_TRIE_ROOT and (change.storage_cleared or change.account is None):
        result.cleared.append(owner)
        storage_root = EMPTY_TRIE_ROOT
    if change.account is None:
        return None
    if change.storage:
        slots = {keccak256(_word(slot)): _slot_leaf(value) for slot, value in change.storage.items()}
        if storage_root == EMPTY_TRIE_ROOT:
            update = trie.update(lambda _path: None, slots)
        else:
            update = trie.update(lambda path: nodes.node(owner, path), slots)
        result.nodes.update(((owner, path), raw) for path, raw in update.nodes.items())
        storage_root = update.root
    return Account(change.account.nonce, change.account.balance, change.account.code_hash, storage_root)


def _word(value: int) -> bytes:
    return value.to_bytes(32, "big")


def _slot_leaf(value: int) -> bytes | None:
    return rlp.encode_bytes(rlp.encode_int(value)) if value else None


@dataclass(frozen=True, slots=True)
class SlotProof:
    """A storage slot's value, and the nodes of the account's storage trie that show it."""

    slot: int
    value: int
    proof: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class AccountProof:
    """What eth_getProof answers: an account (None: there is none), some of its slots, and the nodes that show it."""

    address: bytes
    account: Account | None
    proof: tuple[bytes, ...]
    slots: tuple[SlotProof, ...]


class ProvableState(StateReader, Protocol):
    """A state that can show what it holds."""

    def proof(self, address: bytes, slots: Sequence[int]) -> AccountProof:
        """The account at `address` (it need not exist) and the values of `slots`, with their proofs."""


def prove_account(nodes: StateNodes, address: bytes, slots: Mapping[int, int]) -> AccountProof:
    """Prove an account and the values of `slots` (slot to value, as the state has them)."""
    owner = keccak256(address)
    account = nodes.account(address)
    has_storage = account is not None and account.storage_root != EMPTY_TRIE_ROOT
    shown = [
        SlotProof(slot, value, tuple(_storage_proof(nodes, owner, slot)) if has_storage else ())
        for slot, value in slots.items()
    ]
    proof = trie.prove(lambda path: nodes.node(ACCOUNTS_OWNER, path), owner)
    return AccountProof(address, account, tuple(proof), tuple(shown))


def _storage_proof(nodes: StateNodes, owner: bytes, slot: int) -> Sequence[bytes]:
    return trie.prove(lambda path: nodes.node(owner, path), keccak256(_word(slot)))


def verify_account_proof(state_root: bytes, proof: AccountProof) -> None:
    """Raise ProofError unless `proof` shows the account and all its slots to be in the state with this root."""
    leaf = trie.verify_proof(state_root, keccak256(proof.address), proof.proof)
    try:
        account = None if leaf is None else decode_account(leaf)
    except RlpError as error:
        raise ProofError(f"the account's leaf is malformed: {error}") from error
    if account != proof.account:
        raise ProofError(f"the proof shows {account}, not {proof.account}")
    storage_root = EMPTY_TRIE_ROOT if account is None else account.storage_root
    for one in proof.slots:
        value = trie.verify_proof(storage_root, keccak256(_word(one.slot)), one.proof)
        if (value or b"\x80") != (_slot_leaf(one.value) or b"\x80"):
            raise ProofError(f"the proof does not show slot {one.slot} to hold {one.value}")


assert encode_account(Account(0, 0)) == rlp.encode([b"", b"", EMPTY_TRIE_ROOT, EMPTY_CODE_HASH])
