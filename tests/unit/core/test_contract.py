"""The ABI layer: structs, addresses as bytes, events, errors and genesis storage."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.contract import AbiError, Artifact, ContractError, load_artifact
from core.hashing import keccak256
from core.receipts import Log

PAIR = [{"name": "owner", "type": "address"}, {"name": "labels", "type": "string[]"}]
ABI = [
    {
        "type": "function",
        "name": "put",
        "inputs": [{"name": "pairs", "type": "tuple[]", "components": PAIR}, {"name": "count", "type": "uint8"}],
        "outputs": [{"name": "", "type": "tuple", "components": PAIR}],
    },
    {"type": "function", "name": "nothing", "inputs": [], "outputs": []},
    {"type": "error", "name": "Denied", "inputs": [{"name": "who", "type": "address"}]},
    {
        "type": "event",
        "name": "Put",
        "inputs": [
            {"name": "count", "type": "uint256", "indexed": False},
            {"name": "owner", "type": "address", "indexed": True},
            {"name": "label", "type": "string", "indexed": True},
        ],
    },
]
STORAGE = {"flag": (0, 0, 1), "owner": (0, 1, 20), "total": (3, 0, 32)}
CONTRACT = Artifact("Sample", ABI, b"\x01", b"\x02", STORAGE)
OWNER = bytes(range(20))


@given(st.lists(st.tuples(st.binary(min_size=20, max_size=20), st.lists(st.text(), max_size=3).map(tuple)), max_size=3))
def test_calls_survive_the_round_trip(pairs: list[tuple[bytes, tuple[str, ...]]]) -> None:
    name, arguments = CONTRACT.decode_call(CONTRACT.encode_call("put", pairs, 7))
    assert (name, arguments) == ("put", {"pairs": tuple(pairs), "count": 7})


def test_results_have_bytes_for_addresses() -> None:
    encoded = CONTRACT.encode_call("put", [(OWNER, ("a",))], 0)[4:]
    value = encoded[encoded.index(OWNER) - 12 :]
    assert CONTRACT.decode_result("put", (32).to_bytes(32, "big") + value) == (OWNER, ("a",))
    assert CONTRACT.decode_result("nothing", b"") is None


def test_events_are_named_and_hashed_where_they_must_be() -> None:
    topics = (CONTRACT.event_topic("Put"), OWNER.rjust(32, b"\0"), keccak256(b"label"))
    assert topics[0] == keccak256(b"Put(uint256,address,string)")
    event = CONTRACT.decode_log(Log(OWNER, topics, (9).to_bytes(32, "big")))
    assert event is not None
    assert (event.name, event.arguments) == ("Put", {"count": 9, "owner": OWNER, "label": keccak256(b"label")})
    assert CONTRACT.decode_log(Log(OWNER, (bytes(32),), b"")) is None
    assert CONTRACT.decode_log(Log(OWNER, (), b"")) is None
    with pytest.raises(AbiError, match="2 indexed"):
        CONTRACT.decode_log(Log(OWNER, topics[:2], bytes(32)))


def test_errors_are_named() -> None:
    denied = keccak256(b"Denied(address)")[:4] + OWNER.rjust(32, b"\0")
    assert str(CONTRACT.decode_error(denied)) == f"Denied(who=0x{OWNER.hex()})"
    panic = keccak256(b"Panic(uint256)")[:4] + (0x11).to_bytes(32, "big")
    assert CONTRACT.decode_error(panic) == ContractError("Panic", {"code": 0x11})
    words = ((32).to_bytes(32, "big"), (2).to_bytes(32, "big"), b"no".ljust(32, b"\0"))
    assert CONTRACT.decode_error(keccak256(b"Error(string)")[:4] + b"".join(words)) == ContractError(
        "Error", {"message": "no"}
    )
    assert CONTRACT.decode_error(b"") is None
    assert CONTRACT.decode_error(b"\xff" * 36) is None


@pytest.mark.parametrize(
    ("function", "arguments"),
    [("missing", ()), ("put", ()), ("put", ([], 256)), ("put", ([(b"short", ())], 1)), ("put", (1, 1))],
)
def test_what_does_not_fit_is_refused(function: str, arguments: tuple[object, ...]) -> None:
    with pytest.raises(AbiError):
        CONTRACT.encode_call(function, *arguments)


@given(st.binary(max_size=300))
def test_any_bytes_decode_or_are_refused(data: bytes) -> None:
    call = CONTRACT.encode_call("nothing") + data
    assert CONTRACT.decode_call(call) == ("nothing", {})
    refused = False
    try:
        CONTRACT.decode_result("put", data)
    except AbiError:
        refused = True
    assert refused or len(data) >= 32


def test_storage_is_packed_as_solidity_packs_it() -> None:
    words = CONTRACT.encode_storage({"flag": 1, "owner": OWNER, "total": 5})
    assert words == {0: 1 | int.from_bytes(OWNER, "big") << 8, 3: 5}
    assert CONTRACT.encode_storage({"total": 0}) == {}
    wrong: tuple[dict[str, int | bytes], ...] = ({"flag": 256}, {"owner": b"\1" * 21}, {"other": 1}, {"flag": -1})
    for values in wrong:
        with pytest.raises(AbiError):
            CONTRACT.encode_storage(values)


def test_artifacts_load(tmp_path: Path) -> None:
    path = tmp_path / "Sample.json"
    layout = [{"label": "flag", "slot": 0, "offset": 0, "bytes": 1}]
    raw = {
        "contractName": "Sample",
        "abi": ABI,
        "bytecode": "0x01",
        "deployedBytecode": "0x02",
        "storageLayout": layout,
    }
    path.write_text(json.dumps(raw))
    assert load_artifact(path) == Artifact("Sample", ABI, b"\x01", b"\x02", {"flag": (0, 0, 1)})
