"""Genesis files: what they give, and what is wrong with them."""

import json
from pathlib import Path
from typing import Any

import pytest

from core.errors import GenesisError
from core.fork import Fork
from core.genesis import Genesis, Predeploy, dev_genesis, load_genesis
from core.memory_state import MemoryState
from core.state_trie import verify_account_proof
from core.system_contracts import SYSTEM_CONTRACTS

ACCOUNT, CONTRACT = b"\1" * 20, b"\2" * 20


def content(**changes: Any) -> dict[str, Any]:
    predeploys = {CONTRACT: Predeploy(b"\x60\x00", {0: 1, 2**256 - 1: 2**256 - 1}, balance_wei=3)}
    return {**dev_genesis(1337, {ACCOUNT: 10**18}, predeploys, timestamp=7), **changes}


def test_a_local_networks_genesis() -> None:
    genesis = Genesis.from_geth(content())
    header = genesis.block.block.header
    assert genesis.config.fork_at(0, header.timestamp) == Fork.OSAKA
    assert (header.base_fee_per_gas, header.gas_limit, header.timestamp) == (10**9, 60_000_000, 7)
    state = MemoryState().apply(genesis.difference)
    assert state.root == header.state_root
    assert state.accounts[ACCOUNT].balance == 10**18
    assert state.accounts[CONTRACT].storage == {0: 1, 2**256 - 1: 2**256 - 1}
    for contract in SYSTEM_CONTRACTS:
        assert state.accounts[contract.address].code == contract.code
        assert state.accounts[contract.address].nonce == 1
    proof = state.proof(CONTRACT, [0, 5])
    verify_account_proof(state.root, proof)
    assert [one.value for one in proof.slots] == [1, 0]


def test_it_survives_a_file(tmp_path: Path) -> None:
    path = tmp_path / "genesis.json"
    path.write_text(json.dumps(content()))
    assert load_genesis(path).block.hash == Genesis.from_geth(content()).block.hash
    path.write_text("{")
    with pytest.raises(GenesisError, match="is not JSON"):
        load_genesis(path)
    with pytest.raises(GenesisError, match="No such file"):
        load_genesis(tmp_path / "nowhere.json")


def alloc(**account: Any) -> dict[str, Any]:
    return content(alloc={"0x" + "03" * 20: account})


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ([], "is an object"),
        ({"config": 5}, "is an object"),
        (content(config={}), "config.chainId"),
        (content(alloc=[]), "alloc must be an object"),
        (content(alloc={"0x03": {}}), "has 1 bytes, expected 20"),
        (content(alloc={"03" * 20: {}, "0x" + "03" * 20: {}}), "twice"),
        (content(alloc={"0x" + "03" * 20: 5}), "must be an object"),
        (alloc(balance="lots"), r"balance must be a number"),
        (alloc(balance=-1), r"balance must lie in"),
        (alloc(balance=hex(2**256)), r"balance must lie in"),
        (alloc(nonce=2**64), r"nonce must lie in \[0, 2\^64\)"),
        (alloc(code="0xzz"), "code must be hexadecimal"),
        (alloc(storage=[]), "storage must be an object"),
        (alloc(storage={"x": "1"}), "storage key must be a number"),
        (alloc(balanse="0x1"), "mean nothing here: balanse"),
        (content(gasLimit=True), "gasLimit must be a number"),
        (content(extraData="0x" + "00" * 33), "extraData has 33 bytes"),
        (content(coinbase="0x00"), "coinbase has 1 bytes"),
        (content(number="0x1"), "number must be 0"),
        (content(config={"chainId": 1, "londonBlock": "soon"}), "londonBlock must be a non-negative number"),
        (content(config={"chainId": 1, "cancunTime": 9, "pragueTime": 5}), "in order"),
    ],
)
def test_what_is_wrong_is_named(file: Any, message: str) -> None:
    with pytest.raises(GenesisError, match=message):
        Genesis.from_geth(file)


def test_addresses_that_collide() -> None:
    with pytest.raises(GenesisError, match="system contract"):
        dev_genesis(1, {}, {SYSTEM_CONTRACTS[0].address: Predeploy(b"")}, timestamp=0)
    with pytest.raises(GenesisError, match="address of a contract"):
        dev_genesis(1, {CONTRACT: 1}, {CONTRACT: Predeploy(b"\0")}, timestamp=0)
