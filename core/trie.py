"""Merkle Patricia tries (Yellow Paper, appendix D): roots, batched updates, lookups, and proofs.

A trie is named by a `NodeReader`: what stands at a path. Nodes are stored by *path*, not by hash, so that a store can
keep versions of a node side by side and drop old ones without counting references. An update reads the nodes on the
way to the changed keys, and returns the new root with the nodes to write; it stores nothing itself. Knows nothing of
accounts (`core.state_trie`) or of databases (`core.store`).

Paths and the parts of keys are strings of lower-case hexadecimal digits, one a nibble: they sort, split and compare at
C speed. A *reference* is what a parent holds of a child: the child's own RLP when it is shorter than 32 bytes, else
0xa0 and its hash; 0x80 where there is no child.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from core import rlp
from core.errors import ProofError, RlpError
from core.hashing import EMPTY_TRIE_ROOT, keccak256

__all__ = [
    "NodeReader",
    "TrieUpdate",
    "entries",
    "lookup",
    "ordered_root",
    "prove",
    "root_of",
    "update",
    "verify_proof",
]

NodeReader = Callable[[str], bytes | None]
"""The RLP of the node stored at a path, or None. The root's path is ""; embedded nodes are not stored."""

_NO_CHILD = b"\x80"
_REFERENCE_BYTES = 33
_HEX = "0123456789abcdef"
_NIBBLE = {digit: value for value, digit in enumerate(_HEX)}


@dataclass(frozen=True, slots=True)
class TrieUpdate:
    """The root after an update, and the nodes that differ from before: None where a node is gone."""

    root: bytes
    nodes: Mapping[str, bytes | None]


def update(read: NodeReader, changes: Mapping[bytes, bytes | None]) -> TrieUpdate:
    """The trie behind `read` after setting each key to its value; None or b"" removes the key."""
    items = [(key.hex(), value or b"") for key, value in sorted(changes.items())]
    return _Update(read).run(items)


def root_of(items: Mapping[bytes, bytes]) -> bytes:
    """The root of the trie that holds exactly these keys and values."""
    return update(_nothing, items).root


def ordered_root(values: Sequence[bytes]) -> bytes:
    """The root of a list: value i stands at the key RLP(i), as in a block's transactions and receipts tries."""
    return root_of({rlp.encode(rlp.encode_int(index)): value for index, value in enumerate(values)})


def lookup(read: NodeReader, key: bytes) -> bytes | None:
    """The value at a key, or None."""
    return _walk(read, key.hex())[0]


def entries(read: NodeReader) -> Iterator[tuple[bytes, bytes]]:
    """Every key and its value, in ascending order of keys."""
    raw = read("")
    return iter(()) if raw is None else _entries_below(read, "", _decode(raw))


def prove(read: NodeReader, key: bytes) -> list[bytes]:
    """The nodes from the root to the value at `key`, or to where the search for it ends. Empty for an empty trie."""
    return _walk(read, key.hex())[1]


def verify_proof(root: bytes, key: bytes, proof: Iterable[bytes]) -> bytes | None:
    """The value that `proof` shows to stand at `key` in the trie with this root; None when it shows that none does.

    Raises ProofError when a node is missing, superfluous, malformed, or does not have the hash that leads to it.
    """
    nodes = list(proof)
    if root == EMPTY_TRIE_ROOT and not nodes:
        return None
    used = 0
    path, suffix, reference = "", key.hex(), b"\xa0" + root
    while reference != _NO_CHILD:
        raw = reference
        if len(reference) == _REFERENCE_BYTES:
            if used == len(nodes):
                raise ProofError(f"the proof ends before the node at path {path!r}")
            raw = nodes[used]
            if keccak256(raw) != reference[1:]:
                raise ProofError(f"node {used} of the proof does not have the hash that its parent names")
            used += 1
        try:
            rlp.decode(raw)
            node = _decode(raw)
        except (RlpError, ValueError, IndexError) as error:
            raise ProofError(f"node {used - 1} of the proof is malformed: {error}") from error
        found, path, suffix, reference = _step(node, path, suffix)
        if found is not None or reference == _NO_CHILD:
            if used != len(nodes):
                raise ProofError(f"{len(nodes) - used} nodes of the proof are not needed")
            return found
    raise AssertionError("a walk ends inside the loop")


class _Leaf:
    __slots__ = ("suffix", "value")

    def __init__(self, suffix: str, value: bytes) -> None:
        self.suffix = suffix
        self.value = value

    def encode(self) -> bytes:
        return _encode_pair(_hex_prefix(self.suffix, leaf=True), rlp.encode_bytes(self.value))


class _Extension:
    __slots__ = ("child", "prefix")

    def __init__(self, prefix: str, child: bytes) -> None:
        self.prefix = prefix
        self.child = child

    def encode(self) -> bytes:
        return _encode_pair(_hex_prefix(self.prefix, leaf=False), self.child)


class _Branch:
    """`children` are 16 references; `value` belongs to the key that ends here (b"" for none)."""

    __slots__ = ("children", "value")

    def __init__(self, children: list[bytes], value: bytes) -> None:
        self.children = children
        self.value = value

    def encode(self) -> bytes:
        body = b"".join(self.children) + (rlp.encode_bytes(self.value) if self.value else _NO_CHILD)
        return rlp.encode_list(body)


_Node = _Leaf | _Extension | _Branch
_Items = list[tuple[str, bytes]]


class _Update:
    """One batched update. A node is decoded when a change passes through it, and encoded once, on the way back."""

    def __init__(self, read: NodeReader) -> None:
        self._read = read
        self._before: dict[str, bytes] = {}
        self._after: dict[str, bytes | None] = {}

    def run(self, items: _Items) -> TrieUpdate:
        raw = self._read("")
        if not items:
            return TrieUpdate(EMPTY_TRIE_ROOT if raw is None else keccak256(raw), {})
        root = _NO_CHILD if raw is None else b"\xa0" + keccak256(raw)
        node = self._apply(self._open("", root), "", items)
        if node is None:
            return TrieUpdate(EMPTY_TRIE_ROOT, self._after)
        encoded = node.encode()
        self._write("", encoded)
        return TrieUpdate(keccak256(encoded), self._after)

    def _open(self, path: str, reference: bytes) -> _Node | None:
        """Decode a node that is about to change: unless it is written back, it is gone."""
        if len(reference) < _REFERENCE_BYTES:
            return None if reference == _NO_CHILD else _decode(reference)
        raw = self._after.pop(path, None)  # written by this very update?
        if raw is None:
            raw = self._read(path)
            assert raw is not None, f"the trie has no node at path {path!r}"
            self._before[path] = raw
        if path in self._before:
            self._after[path] = None
        return _decode(raw)

    def _close(self, path: str, node: _Node | None) -> bytes:
        """The reference to `node`, which is written when it does not fit into its parent."""
        if node is None:
            return _NO_CHILD
        encoded = node.encode()
        if len(encoded) < 32:
            return encoded
        self._write(path, encoded)
        return b"\xa0" + keccak256(encoded)

    def _write(self, path: str, encoded: bytes) -> None:
        if self._before.get(path) == encoded:
            self._after.pop(path, None)
        else:
            self._after[path] = encoded

    def _apply(self, node: _Node | None, path: str, items: _Items) -> _Node | None:
        """The node at `path` after `items`, whose keys all begin with `path`, ascending."""
        if node is None:
            return self._build(path, [item for item in items if item[1]])
        if isinstance(node, _Leaf):
            merged = dict(items)
            merged.setdefault(path + node.suffix, node.value)
            return self._build(path, [item for item in sorted(merged.items()) if item[1]])
        if isinstance(node, _Extension):
            return self._apply_to_extension(node, path, items)
        return self._apply_to_branch(node, path, items)

    def _build(self, path: str, items: _Items) -> _Node | None:
        """A new subtrie of these keys, ascending, none of them empty."""
        if not items:
            return None
        depth = len(path)
        if len(items) == 1:
            return _Leaf(items[0][0][depth:], items[0][1])
        shared = _shared_length(items[0][0], items[-1][0], depth)
        fork = items[0][0][: depth + shared]
        branch = self._apply_to_branch(_Branch([_NO_CHILD] * 16, b""), fork, items)
        return self._prefixed(fork[depth:], branch, fork)

    def _apply_to_extension(self, node: _Extension, path: str, items: _Items) -> _Node | None:
        depth = len(path)
        whole = path + node.prefix
        # Sorted keys: what the first and the last share with the prefix, all share.
        shared = min(_shared_length(items[0][0], whole, depth), _shared_length(items[-1][0], whole, depth))
        if shared == len(node.prefix):
            child = self._apply(self._open(whole, node.child), whole, items)
            return self._prefixed(node.prefix, child, whole)
        fork, rest = path + node.prefix[:shared], node.prefix[shared:]
        below: _Node | None = _Extension(rest[1:], node.child) if len(rest) > 1 else None
        children = [_NO_CHILD] * 16
        children[_NIBBLE[rest[0]]] = self._close(fork + rest[0], below) if below else node.child
        branch = self._apply_to_branch(_Branch(children, b""), fork, items)
        return self._prefixed(node.prefix[:shared], branch, fork)

    def _apply_to_branch(self, node: _Branch, path: str, items: _Items) -> _Node | None:
        depth = len(path)
        start = 0
        if len(items[0][0]) == depth:
            node.value = items[0][1]
            start = 1
        while start < len(items):
            digit = items[start][0][depth]
            stop = start + 1
            while stop < len(items) and items[stop][0][depth] == digit:
                stop += 1
            below = path + digit
            child = self._open(below, node.children[_NIBBLE[digit]])
            node.children[_NIBBLE[digit]] = self._close(below, self._apply(child, below, items[start:stop]))
            start = stop
        return self._collapsed(node, path)

    def _collapsed(self, node: _Branch, path: str) -> _Node | None:
        """A branch with fewer than two ways on is no branch."""
        empty = node.children.count(_NO_CHILD)
        if empty < 15 or (empty == 15 and node.value):
            return node
        if empty == 16:
            return _Leaf("", node.value) if node.value else None
        index = next(i for i, child in enumerate(node.children) if child != _NO_CHILD)
        digit, below = _HEX[index], path + _HEX[index]
        return self._prefixed(digit, self._open(below, node.children[index]), below)

    def _prefixed(self, prefix: str, node: _Node | None, path: str) -> _Node | None:
        """The node at `path` seen from `prefix` above it."""
        if node is None or not prefix:
            return node
        if isinstance(node, _Leaf):
            return _Leaf(prefix + node.suffix, node.value)
        if isinstance(node, _Extension):
            return _Extension(prefix + node.prefix, node.child)
        return _Extension(prefix, self._close(path, node))


def _entries_below(read: NodeReader, path: str, node: _Node) -> Iterator[tuple[bytes, bytes]]:
    if isinstance(node, _Leaf):
        yield bytes.fromhex(path + node.suffix), node.value
        return
    if isinstance(node, _Extension):
        children = [(path + node.prefix, node.child)]
    else:
        if node.value:
            yield bytes.fromhex(path), node.value
        children = [(path + digit, node.children[index]) for index, digit in enumerate(_HEX)]
    for below, reference in children:
        raw = read(below) if len(reference) == _REFERENCE_BYTES else reference
        assert raw is not None, f"the trie has no node at path {below!r}"
        if reference != _NO_CHILD:
            yield from _entries_below(read, below, _decode(raw))


def _walk(read: NodeReader, key: str) -> tuple[bytes | None, list[bytes]]:
    """The value at `key`, and the stored nodes on the way to where the search ends."""
    raw = read("")
    if raw is None:
        return None, []
    passed = [raw]
    found, path, suffix, reference = _step(_decode(raw), "", key)
    while found is None and reference != _NO_CHILD:
        if len(reference) == _REFERENCE_BYTES:
            raw = read(path)
            assert raw is not None, f"the trie has no node at path {path!r}"
            passed.append(raw)
        else:
            raw = reference
        found, path, suffix, reference = _step(_decode(raw), path, suffix)
    return found, passed


def _step(node: _Node, path: str, suffix: str) -> tuple[bytes | None, str, str, bytes]:
    """One step down: the value if the search ends here, else the child's path, the rest of the key, its reference."""
    if isinstance(node, _Leaf):
        return (node.value if node.suffix == suffix else None), path, suffix, _NO_CHILD
    if isinstance(node, _Extension):
        if not suffix.startswith(node.prefix):
            return None, path, suffix, _NO_CHILD
        return None, path + node.prefix, suffix[len(node.prefix) :], node.child
    if not suffix:
        return node.value or None, path, suffix, _NO_CHILD
    return None, path + suffix[0], suffix[1:], node.children[_NIBBLE[suffix[0]]]


def _nothing(_path: str) -> None:
    return None


def _shared_length(one: str, other: str, start: int) -> int:
    """How many digits two strings share from `start` on."""
    position = start
    end = min(len(one), len(other))
    while position < end and one[position] == other[position]:
        position += 1
    return position - start


def _hex_prefix(digits: str, *, leaf: bool) -> bytes:
    """The compact form of a partial path: a flag nibble (2 for a leaf, 1 for odd length), then the digits."""
    flag = ("3" if leaf else "1") if len(digits) % 2 else ("20" if leaf else "00")
    return bytes.fromhex(flag + digits)


def _encode_pair(path: bytes, payload: bytes) -> bytes:
    return rlp.encode_list(rlp.encode_bytes(path) + payload)


def _decode(raw: bytes) -> _Node:
    """Decode a canonical node. Raises ValueError or IndexError for what is not a node."""
    position, end = _payload(raw, 0)
    if end != len(raw) or raw[0] < 0xC0:
        raise ValueError("a node is one list")
    items = []
    while position < end:
        start = position
        lead = raw[position]
        if lead == 0xA0:
            position += _REFERENCE_BYTES
        elif lead <= 0x80:
            position += 1
        else:
            position = _payload(raw, position)[1]
        items.append(raw[start:position])
    if len(items) == 17:
        value = items.pop()
        return _Branch(items, b"" if value == _NO_CHILD else _string(value))
    if len(items) != 2:
        raise ValueError(f"a node has 2 or 17 items, not {len(items)}")
    flagged = _string(items[0]).hex()
    flag = _NIBBLE[flagged[0]] if flagged else 4
    if flag > 3:
        raise ValueError("the path of a node begins with a flag from 0 to 3")
    digits = flagged[1:] if flag & 1 else flagged[2:]
    return _Leaf(digits, _string(items[1])) if flag & 2 else _Extension(digits, items[1])


def _payload(raw: bytes, position: int) -> tuple[int, int]:
    """Where the payload of the item at `position` begins and ends."""
    lead = raw[position]
    if lead < 0x80:
        return position, position + 1
    base = 0x80 if lead < 0xC0 else 0xC0
    size = lead - base
    if size < 56:
        return position + 1, position + 1 + size
    start = position + 1 + size - 55
    return start, start + int.from_bytes(raw[position + 1 : start], "big")


def _string(item: bytes) -> bytes:
    start, end = _payload(item, 0)
    return item[start:end]
