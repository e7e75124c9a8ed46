"""The model on disk (section 6): a directory named by its root, opened by memory map, written tensor by tensor.

`ExactModel` reads and verifies, `ModelWriter` writes, `ModelStore` is a folder of models. Nothing here knows where
weights come from or what is computed with them. A manifest is never believed: shapes and offsets follow from the
header, the root is recomputed from the digests, and `verify` recomputes the digests from the bytes.
"""

import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from core.hashing import keccak256
from worker.inference.errors import ModelCorrupt, ModelNotFound, ModelUnsupported
from worker.inference.exact.identity import model_root, tensor_leaf, tensor_root
from worker.inference.exact.specification import ROLES, SPECIFICATION, Header, TensorSpec, tensor_specs

__all__ = ["CHAT_TEMPLATE_FILE", "TOKENIZER_FILE", "ExactModel", "ModelStore", "ModelWriter"]

FORMAT: Final = "warpgrid-exact-model"
MANIFEST_FILE: Final = "model.json"
WEIGHTS_FILE: Final = "weights.bin"
TOKENIZER_FILE: Final = "tokenizer.json"
CHAT_TEMPLATE_FILE: Final = "chat_template.jinja"
ALIGNMENT_BYTES: Final = 64
MANIFEST_BYTES_MAX: Final = 1 << 24
SIDE_FILE_BYTES_MAX: Final = 1 << 28
IMPORTING_PREFIX: Final = ".importing-"


@dataclass(frozen=True)
class _Placed:
    spec: TensorSpec
    offset: int


def _layout(header: Header) -> tuple[dict[str, _Placed], int]:
    """Where each tensor lies in weights.bin, and that file's size."""
    placed, end = {}, 0
    for spec in tensor_specs(header):
        offset = -(-end // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
        placed[spec.name] = _Placed(spec, offset)
        end = offset + spec.bytes
    return placed, end


class ExactModel:
    """An imported model, memory-mapped. Tensors are read-only views; nothing is copied.

    Opening checks everything that is cheap: the manifest, sizes, the root, the small files, and the bounds on scales
    without which arithmetic could overflow. `verify` reads every byte. Raises ModelCorrupt and ModelUnsupported.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        manifest = _read_manifest(directory)
        self.header = _parse_header(manifest)
        self.provenance: Mapping[str, Any] = manifest.get("provenance", {})
        self._placed, size = _layout(self.header)
        self._roots = _parse_roots(directory, manifest, self._placed)
        self.tokenizer = _read_side_file(directory, TOKENIZER_FILE)
        self.chat_template = _read_side_file(directory, CHAT_TEMPLATE_FILE).decode()
        self.root = _root_of(self.header, self.tokenizer, self.chat_template.encode(), self._placed, self._roots)
        if manifest.get("root") != self.root.hex():
            raise ModelCorrupt(f"{directory}: the manifest's root is not that of its digests and small files")
        self._bytes = _map_weights(directory / WEIGHTS_FILE, size)
        self._check_scales()

    @property
    def name(self) -> str:
        """What the model was called when it was imported; not part of its identity."""
        return str(self.provenance.get("name", self.root.hex()[:12]))

    @property
    def specs(self) -> list[TensorSpec]:
        return [placed.spec for placed in self._placed.values()]

    def tensor(self, name: str) -> NDArray[Any]:
        placed = self._placed[name]
        raw = self.raw(name)
        return raw.view(placed.spec.dtype).reshape(placed.spec.shape)

    def raw(self, name: str) -> NDArray[np.uint8]:
        """A tensor's canonical bytes."""
        placed = self._placed[name]
        return self._bytes[placed.offset : placed.offset + placed.spec.bytes]

    def tensor_root(self, name: str) -> bytes:
        """The Merkle root that the manifest states for a tensor (checked by `verify`)."""
        return self._roots[name]

    def verify(self) -> None:
        """Recompute every digest from the bytes. Raises ModelCorrupt naming the first tensor that differs."""
        for name, placed in self._placed.items():
            if tensor_root(placed.spec, self.raw(name)) != self._roots[name]:
                raise ModelCorrupt(f"{self.directory / WEIGHTS_FILE}: tensor {name} does not match its root")
            if name.endswith(".weight") and self.tensor(name).min() == -128:
                raise ModelCorrupt(f"{self.directory / WEIGHTS_FILE}: tensor {name} holds -128, which no weight may be")

    def _check_scales(self) -> None:
        names = ["embedding", *(f"layers.{i}.{role}" for i in range(self.header.layers) for role in ROLES[:-1]), "head"]
        for name in names:
            role: Any = name.rsplit(".", 1)[-1]
            mantissas, exponents = self.tensor(f"{name}.mantissa"), self.tensor(f"{name}.exponent")
            if mantissas.min() < 2**15 or exponents.max() > self.header.exponent_max(role):
                raise ModelCorrupt(f"{self.directory / WEIGHTS_FILE}: the scales of {name} are out of bounds")


def _read_manifest(directory: Path) -> dict[str, Any]:
    path = directory / MANIFEST_FILE
    try:
        if path.stat().st_size > MANIFEST_BYTES_MAX:
            raise ModelCorrupt(f"{path} is larger than any manifest")
        manifest = orjson.loads(path.read_bytes())  # bounds the nesting, which `json` here does not
    except FileNotFoundError as error:
        raise ModelNotFound(f"{directory} holds no {MANIFEST_FILE}") from error
    except ValueError as error:
        raise ModelCorrupt(f"{path} is not JSON: {error}") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ModelCorrupt(f"{path} is not the manifest of an exact model")
    if manifest.get("specification") != SPECIFICATION:
        raise ModelUnsupported(f"{path} follows specification {manifest.get('specification')}, not {SPECIFICATION}")
    return manifest


def _parse_header(manifest: Mapping[str, Any]) -> Header:
    stated = manifest.get("header")
    names = [field.name for field in fields(Header)]
    if not isinstance(stated, dict) or sorted(stated) != sorted(names):
        raise ModelCorrupt("the manifest's header lacks fields or has unknown ones")
    end_tokens = stated["end_tokens"]
    integers = [stated[name] for name in names if name != "end_tokens"]
    if not isinstance(end_tokens, list) or any(type(value) is not int for value in [*integers, *end_tokens]):
        raise ModelCorrupt("the manifest's header holds something that is not an integer")
    return Header(**{**stated, "end_tokens": tuple(end_tokens)})


def _parse_roots(directory: Path, manifest: Mapping[str, Any], placed: Mapping[str, _Placed]) -> dict[str, bytes]:
    try:
        roots = {entry["name"]: bytes.fromhex(entry["root"]) for entry in manifest["tensors"]}
    except (KeyError, TypeError, ValueError) as error:
        raise ModelCorrupt(f"{directory / MANIFEST_FILE}: the list of tensors is malformed: {error!r}") from error
    if list(roots) != list(placed) or any(len(root) != 32 for root in roots.values()):
        raise ModelCorrupt(f"{directory / MANIFEST_FILE}: its tensors are not those that the header asks for")
    return roots


def _read_side_file(directory: Path, name: str) -> bytes:
    path = directory / name
    try:
        if path.stat().st_size > SIDE_FILE_BYTES_MAX:
            raise ModelCorrupt(f"{path} is larger than {SIDE_FILE_BYTES_MAX} bytes")
        return path.read_bytes()
    except FileNotFoundError as error:
        raise ModelCorrupt(f"{path} is missing") from error


def _map_weights(path: Path, size: int) -> NDArray[np.uint8]:
    actual = path.stat().st_size if path.exists() else 0
    if actual != size:
        raise ModelCorrupt(f"{path} has {actual} bytes; the header asks for {size}")
    return np.memmap(path, dtype=np.uint8, mode="r")


def _root_of(
    header: Header, tokenizer: bytes, template: bytes, placed: Mapping[str, _Placed], roots: Mapping[str, bytes]
) -> bytes:
    leaves = [tensor_leaf(one.spec, roots[name]) for name, one in placed.items()]
    return model_root(header, keccak256(tokenizer), keccak256(template), leaves)


class ModelWriter:
    """Writes one model into `directory` (which exists and is empty): every tensor once, in any order, then `finish`."""

    def __init__(self, directory: Path, header: Header) -> None:
        self.header = header
        self._directory = directory
        self._placed, size = _layout(header)
        self._written: set[str] = set()
        with (directory / WEIGHTS_FILE).open("wb") as file:
            file.truncate(size)
        self._bytes = np.memmap(directory / WEIGHTS_FILE, dtype=np.uint8, mode="r+")

    def rows(self, name: str, first: int, values: NDArray[Any]) -> None:
        """Write rows first .. first + len(values) of a tensor (elements, for a vector); dtype must be the tensor's."""
        placed = self._placed[name]
        item_bytes = placed.spec.bytes // placed.spec.shape[0]
        assert values.dtype == placed.spec.dtype
        assert values.shape[1:] == placed.spec.shape[1:]
        assert 0 <= first <= first + len(values) <= placed.spec.shape[0]
        start = placed.offset + first * item_bytes
        self._bytes[start : start + values.nbytes] = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
        self._written.add(name)

    def tensor(self, name: str, values: NDArray[Any]) -> None:
        assert values.shape == self._placed[name].spec.shape
        self.rows(name, 0, values)

    def finish(self, tokenizer: bytes, chat_template: str, provenance: Mapping[str, Any]) -> bytes:
        """Write the small files and the manifest, sync everything, and return the root."""
        missing = set(self._placed) - self._written
        assert not missing, f"tensors never written: {sorted(missing)}"
        template = chat_template.encode()
        roots = {name: tensor_root(one.spec, self._extent(one)) for name, one in self._placed.items()}
        root = _root_of(self.header, tokenizer, template, self._placed, roots)
        manifest = {
            "format": FORMAT,
            "specification": SPECIFICATION,
            "root": root.hex(),
            "header": {field.name: getattr(self.header, field.name) for field in fields(Header)},
            "tensors": [
                {
                    "name": name,
                    "type": one.spec.type,
                    "shape": one.spec.shape,
                    "offset": one.offset,
                    "bytes": one.spec.bytes,
                    "root": roots[name].hex(),
                }
                for name, one in self._placed.items()
            ],
            "files": [
                {"name": name, "bytes": len(data), "keccak": keccak256(data).hex()}
                for name, data in ((TOKENIZER_FILE, tokenizer), (CHAT_TEMPLATE_FILE, template))
            ],
            "provenance": dict(provenance),
        }
        self._bytes.flush()
        _write_synced(self._directory / TOKENIZER_FILE, tokenizer)
        _write_synced(self._directory / CHAT_TEMPLATE_FILE, template)
        encoded = json.dumps(manifest, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        _write_synced(self._directory / MANIFEST_FILE, encoded)
        return root

    def _extent(self, placed: _Placed) -> NDArray[np.uint8]:
        return self._bytes[placed.offset : placed.offset + placed.spec.bytes]


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


class ModelStore:
    """A folder of models, each a directory named by its root. Safe for several processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def models(self) -> list[Path]:
        """The directories of all models, oldest first."""
        if not self.folder.is_dir():
            return []
        found = [path for path in self.folder.iterdir() if (path / MANIFEST_FILE).is_file() and path.name[0] != "."]
        return sorted(found, key=lambda path: (path / MANIFEST_FILE).stat().st_mtime_ns)

    def find(self, reference: str) -> Path:
        """The model with this root, a unique prefix of it (at least 4 digits), or this name (the newest, of several).

        Raises ModelNotFound.
        """
        models = self.models()
        if len(reference) >= 4:
            by_root = [path for path in models if path.name.startswith(reference.removeprefix("0x").lower())]
            if len(by_root) == 1:
                return by_root[0]
        by_name = [path for path in models if _read_manifest(path).get("provenance", {}).get("name") == reference]
        if not by_name:
            known = ", ".join(path.name[:12] for path in models) or "none"
            raise ModelNotFound(
                f"no model {reference!r} in {self.folder} (there: {known}): name one of these, import it with "
                "`warpgrid model import`, or give another --models-dir"
            )
        return by_name[-1]

    def remove(self, reference: str) -> Path:
        """Remove a model; it vanishes at once, its bytes a moment later."""
        path = self.find(reference)
        doomed = self.folder / f"{IMPORTING_PREFIX}{secrets.token_hex(8)}"
        path.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)  # should a file resist, the next import sweeps the rest
        return path

    @contextmanager
    def importing(self) -> Iterator[Path]:
        """An empty directory to write a model into. Left normally, it becomes the model named by its manifest's root,
        or takes the place of each file of that model, which mends it and gives it the new name; left by an exception,
        nothing remains. What a killed process left behind is removed by the next import.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        work, lock = self._begin()
        try:
            yield work
            final = self.folder / _read_manifest(work)["root"]
            _sync_directory(work)
            if final.exists():
                for path in work.iterdir():
                    path.replace(final / path.name)
                _sync_directory(final)
            else:
                work.rename(final)
                _sync_directory(self.folder)
        finally:
            shutil.rmtree(work, ignore_errors=True)
            os.close(lock)

    def _begin(self) -> tuple[Path, int]:
        """Remove what dead imports left, and make a work directory that is locked while this process lives."""
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)  # a work directory is made and locked before another process looks
            for path in self.folder.glob(f"{IMPORTING_PREFIX}*"):
                left = _try_lock(path)
                if left is not None:
                    shutil.rmtree(path, ignore_errors=True)
                    os.close(left)
            work = self.folder / f"{IMPORTING_PREFIX}{secrets.token_hex(8)}"
            work.mkdir()
            lock = _try_lock(work)
            assert lock is not None
            return work, lock
        finally:
            os.close(folder)


def _try_lock(directory: Path) -> int | None:
    """Lock a directory until the returned descriptor is closed; None when another descriptor holds the lock."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
