"""vectors/rlp, trie and transactions: every one, in the default run (they take seconds)."""

import json
from bisect import bisect_left, bisect_right
from typing import Any

import pytest

from core import rlp, trie
from core.errors import RlpError, TransactionError
from core.execution import RejectionReason
from core.fork import Fork
from core.gas import intrinsic_gas, static_violation
from core.hashing import keccak256
from core.signature import S_MAX, S_MAX_FRONTIER, recover_sender
from core.transaction import decode_transaction, encode_transaction, transaction_hash
from tests.conformance.vectors import VECTORS, needs_vectors, read

pytestmark = needs_vectors

FORKS = {
    "Frontier": Fork.FRONTIER,
    "Homestead": Fork.HOMESTEAD,
    "EIP150": Fork.TANGERINE_WHISTLE,
    "EIP158": Fork.SPURIOUS_DRAGON,
    "Byzantium": Fork.BYZANTIUM,
    "Constantinople": Fork.CONSTANTINOPLE,
    "ConstantinopleFix": Fork.CONSTANTINOPLE,
    "Istanbul": Fork.ISTANBUL,
    "Berlin": Fork.BERLIN,
    "London": Fork.LONDON,
    "Paris": Fork.PARIS,
    "Shanghai": Fork.SHANGHAI,
    "Cancun": Fork.CANCUN,
}


REASONS = {
    "INITCODE_SIZE_EXCEEDED": RejectionReason.INITCODE_TOO_LARGE,
    "INTRINSIC_GAS_TOO_LOW": RejectionReason.INTRINSIC_GAS,
    "NONCE_TOO_BIG": RejectionReason.NONCE_OVERFLOW,
    "GASLIMIT_PRICE_PRODUCT_OVERFLOW": RejectionReason.FEE_OVERFLOW,
    "PRIORITY_GREATER_THAN_MAX_FEE_PER_GAS_2": RejectionReason.PRIORITY_FEE_ABOVE_MAX_FEE,
}


def cases(folder: str) -> list[Any]:
    """(file and name, content) of every case."""
    if not VECTORS.is_dir():
        return []
    return [
        pytest.param(file, case, id=f"{file.rsplit('/', 1)[-1]}:{name}")
        for file, content in read(VECTORS / folder)
        for name, case in json.loads(content).items()
    ]


def unhex(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))


def test_all_of_them_are_here() -> None:
    assert (len(cases("rlp")), len(cases("trie")), len(cases("transactions"))) == (55, 26, 210)


@pytest.mark.parametrize(("file", "case"), cases("rlp"))
def test_rlp(file: str, case: dict[str, Any]) -> None:
    raw = unhex(case["out"])
    if case["in"] == "INVALID":
        with pytest.raises(RlpError):
            rlp.decode(raw)
    elif case["in"] == "VALID":
        assert rlp.encode(rlp.decode(raw)) == raw
    else:
        assert rlp.encode(rlp_item(case["in"])) == raw
        assert rlp.encode(rlp.decode(raw)) == raw


def rlp_item(value: Any) -> rlp.Item:
    """The item that a JSON value stands for; "#" begins a decimal number."""
    if isinstance(value, list):
        return [rlp_item(one) for one in value]
    if isinstance(value, int):
        return rlp.encode_int(value)
    return rlp.encode_int(int(value[1:])) if value.startswith("#") else value.encode()


@pytest.mark.parametrize(("file", "case"), cases("trie"))
def test_trie(file: str, case: dict[str, Any]) -> None:
    if "nextprev" in file:
        check_neighbours(case)
        return
    items = case["in"] if isinstance(case["in"], list) else list(case["in"].items())
    nodes: dict[str, bytes] = {}
    held: dict[bytes, bytes] = {}
    for name, value in items:
        key = keccak256(trie_bytes(name)) if "secure" in file.lower() else trie_bytes(name)
        update = trie.update(nodes.get, {key: None if value is None else trie_bytes(value)})
        nodes = {path: raw for path, raw in {**nodes, **update.nodes}.items() if raw is not None}
        held[key] = b"" if value is None else trie_bytes(value)
    expected = unhex(case["root"])
    assert update.root == expected
    assert trie.root_of(held) == expected
    for key, content in held.items():
        assert trie.verify_proof(expected, key, trie.prove(nodes.get, key)) == (content or None)


def trie_bytes(text: str) -> bytes:
    return unhex(text) if text.startswith("0x") else text.encode()


def check_neighbours(case: dict[str, Any]) -> None:
    nodes = trie.update(lambda _path: None, {word.encode(): b"x" for word in case["in"]}).nodes
    keys = [key.decode() for key, _ in trie.entries(nodes.get)]
    for word, before, after in case["tests"]:
        at = bisect_left(keys, word)
        assert (keys[at - 1] if at else "") == before
        assert (keys[bisect_right(keys, word) :] or [""])[0] == after


@pytest.mark.parametrize(("file", "case"), cases("transactions"))
def test_transaction(file: str, case: dict[str, Any]) -> None:
    raw = unhex(case["txbytes"])
    for fork_name, expected in case["result"].items():
        fork = FORKS[fork_name]
        if "exception" in expected:
            reason = REASONS.get(expected["exception"].removeprefix("TransactionException."), "")
            with pytest.raises(TransactionError, match=f"^{reason}"):
                accept(raw, fork)
        else:
            wanted = unhex(expected["hash"]), unhex(expected["sender"]), int(expected["intrinsicGas"], 16)
            assert accept(raw, fork) == wanted


def accept(raw: bytes, fork: Fork) -> tuple[bytes, bytes, int]:
    """Hash, sender and intrinsic gas of a transaction for mainnet, all of whose static rules hold."""
    tx = decode_transaction(raw)
    assert encode_transaction(tx) == raw
    violation = static_violation(tx, fork, chain_id=1)
    if violation is not None:
        raise TransactionError(f"{violation.reason}: {violation.detail}")
    sender = recover_sender(tx, s_max=S_MAX if fork >= Fork.HOMESTEAD else S_MAX_FRONTIER)
    return transaction_hash(tx), sender, intrinsic_gas(tx, fork)
