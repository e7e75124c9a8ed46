"""RLP: our encoder against the specification's, our readers against malformed items."""

from typing import Any

import pytest
from ethereum_rlp import rlp as specification
from ethereum_rlp.exceptions import RLPException
from hypothesis import given
from hypothesis import strategies as st

from core import rlp
from core.errors import RlpError

items: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.binary(max_size=8), st.binary(min_size=50, max_size=70), st.binary(min_size=250, max_size=300)),
    lambda inner: st.lists(inner, max_size=6),
    max_leaves=20,
)


@given(items)
def test_it_encodes_as_the_specification_does(item: rlp.Item) -> None:
    raw = rlp.encode(item)
    assert raw == specification.encode(item)
    assert rlp.encode(rlp.decode(raw)) == raw


@given(items, st.data())
def test_it_refuses_what_the_specification_refuses(item: rlp.Item, data: st.DataObject) -> None:
    raw = bytearray(specification.encode(item))
    for _ in range(data.draw(st.integers(0, 2))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    check_against_the_specification(bytes(raw))


@given(st.binary(max_size=60))
def test_it_refuses_noise_as_the_specification_does(raw: bytes) -> None:
    check_against_the_specification(raw)


def check_against_the_specification(raw: bytes) -> None:
    try:
        expected = specification.decode(raw)
    except RLPException:
        with pytest.raises(RlpError):
            rlp.decode(raw)
        return
    assert rlp.decode(raw) == expected
    assert rlp.encode(expected) == raw


@given(st.integers(0, 2**256 - 1))
def test_integers(value: int) -> None:
    assert rlp.read_int(rlp.encode_int(value), "value") == value


def test_long_items_have_long_lengths() -> None:
    for size in (55, 56, 255, 256, 65_535, 65_536):
        assert rlp.encode_bytes(bytes(size)) == specification.encode(bytes(size))
        assert rlp.decode(rlp.encode([bytes(size)])) == [bytes(size)]


def test_depth_is_no_crash() -> None:
    deep = b"\xc0"
    for _ in range(5_000):
        deep = rlp.encode_list(deep)
    with pytest.raises(RlpError):
        rlp.decode(deep)


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (lambda: rlp.read_int(b"\0\1", "nonce"), "nonce has a leading zero"),
        (lambda: rlp.read_int(bytes([1] * 9), "nonce", 64), "nonce does not fit into 64 bits"),
        (lambda: rlp.read_int([], "nonce"), "nonce must be a string"),
        (lambda: rlp.read_list(b"", "list"), "list must be a list"),
        (lambda: rlp.read_list([b""], "list", range(2, 4)), "list has 1 elements, expected 2 to 3"),
        (lambda: rlp.read_fixed(b"1", "to", 20), "to has 1 bytes, expected 20"),
    ],
)
def test_readers_say_what_is_wrong(read: Any, message: str) -> None:
    with pytest.raises(RlpError, match=message):
        read()
