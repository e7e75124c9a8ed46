"""Tries: an update is as good as building anew; proofs prove, and nothing else does."""

import pytest
from ethereum.forks.osaka.trie import Trie
from ethereum.forks.osaka.trie import root as specification_root
from hypothesis import given
from hypothesis import strategies as st

from core import trie
from core.errors import ProofError
from core.hashing import EMPTY_TRIE_ROOT, keccak256

# Few digits and short keys: long shared paths, keys inside keys, nodes that fit into their parents.
keys = st.lists(st.sampled_from([0x00, 0x01, 0x10, 0xFF]), max_size=4).map(bytes)
values = st.sampled_from([b"a", b"\x80", b"abc", b"x" * 31, b"y" * 40, b"z" * 300])
maps = st.dictionaries(keys, values, max_size=12)
updates = st.lists(st.dictionaries(keys, st.none() | values, min_size=1, max_size=6), max_size=6)


def specified_root(held: dict[bytes, bytes]) -> bytes:
    whole: Trie[bytes, bytes] = Trie(secured=False, default=b"")
    whole._data.update(held)
    return bytes(specification_root(whole))


@given(maps, updates)
def test_an_update_is_as_good_as_building_anew(
    held: dict[bytes, bytes], batches: list[dict[bytes, bytes | None]]
) -> None:
    nodes = {path: raw for path, raw in trie.update(lambda _path: None, held).nodes.items() if raw is not None}
    for changes in batches:
        update = trie.update(nodes.get, changes)
        for path, raw in update.nodes.items():
            assert raw != nodes.get(path), "only what differs is written"
            if raw is None:
                del nodes[path]
            else:
                nodes[path] = raw
        held = {key: value for key, value in {**held, **changes}.items() if value is not None}
        anew = trie.update(lambda _path: None, held)
        assert update.root == anew.root == specified_root(held)
        assert nodes == anew.nodes, "no node is left over"
        assert dict(trie.entries(nodes.get)) == held
        assert list(trie.entries(nodes.get)) == sorted(held.items())


@given(maps, keys)
def test_lookups_and_proofs(held: dict[bytes, bytes], absent: bytes) -> None:
    update = trie.update(lambda _path: None, held)
    for key in {*held, absent}:
        assert trie.lookup(update.nodes.get, key) == held.get(key)
        proof = trie.prove(update.nodes.get, key)
        assert trie.verify_proof(update.root, key, proof) == held.get(key)


@given(st.dictionaries(st.binary(min_size=2, max_size=2), st.binary(min_size=33, max_size=40), min_size=2), st.data())
def test_a_changed_proof_proves_nothing_else(held: dict[bytes, bytes], data: st.DataObject) -> None:
    update = trie.update(lambda _path: None, held)
    key = data.draw(st.sampled_from(sorted(held)))
    proof = trie.prove(update.nodes.get, key)
    how = data.draw(st.sampled_from(["flip", "drop", "repeat", "other root"]))
    root, at = update.root, data.draw(st.integers(0, len(proof) - 1))
    if how == "flip":
        node = bytearray(proof[at])
        node[data.draw(st.integers(0, len(node) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        proof[at] = bytes(node)
    elif how == "drop":
        del proof[at]
    elif how == "repeat":
        proof.append(proof[-1])
    else:
        root = keccak256(root)
    with pytest.raises(ProofError):
        trie.verify_proof(root, key, proof)


def test_malformed_nodes_are_refused() -> None:
    for node in (
        b"",
        b"\x80",
        b"\xc0",
        b"\xc1\x80",
        b"\xc3\x80\x80\x80",
        b"\xc2\x44\x80",
        b"\xf8",
        b"\xd1" + b"\x80" * 17 + b"\0",
    ):
        with pytest.raises(ProofError):
            trie.verify_proof(keccak256(node), b"key", [node])


def test_empty() -> None:
    assert trie.root_of({}) == trie.ordered_root([]) == EMPTY_TRIE_ROOT
    assert trie.update(lambda _path: None, {b"k": None}) == trie.TrieUpdate(EMPTY_TRIE_ROOT, {})
    assert trie.prove(lambda _path: None, b"k") == []
    assert trie.verify_proof(EMPTY_TRIE_ROOT, b"k", []) is None
    with pytest.raises(ProofError):
        trie.verify_proof(keccak256(b""), b"k", [])
