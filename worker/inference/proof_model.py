"""A model's tensors, opened chunk by chunk up to its root, as a dispute's contract checks them."""

from collections.abc import Mapping
from functools import cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from core.hashing import keccak256
from worker.inference.exact.identity import TYPE_CODES, header_leaf, open_chunk, tensor_leaf, tensor_root
from worker.inference.exact.model import ExactModel
from worker.inference.exact.specification import Header, tensor_specs
from zk.dispute import ChunkOpening
from zk.merkle import levels_of, siblings_of

__all__ = ["TensorOpener"]

FIRST_TENSOR = 3


class Weights(Protocol):
    """What is opened."""

    @property
    def header(self) -> Header: ...

    def tensor(self, name: str) -> NDArray[Any]: ...


class TensorOpener:
    """Implements `zk.dispute.ModelOpener`. `tokenizer` and `chat_template` are the digests of those files; `roots` are
    tensor roots that are known already (a manifest's), others are computed from the bytes.
    """

    def __init__(
        self, weights: Weights, tokenizer: bytes, chat_template: bytes, roots: Mapping[str, bytes] | None = None
    ) -> None:
        self._weights = weights
        self._specs = tensor_specs(weights.header)
        known = roots or {}
        leaves = [header_leaf(weights.header), tokenizer, chat_template]
        for spec in self._specs:
            root = known.get(spec.name) or tensor_root(spec, self._raw(spec.name))
            leaves.append(tensor_leaf(spec, root))
        self._levels = levels_of(np.frombuffer(b"".join(leaves), np.uint8).reshape(-1, 32))
        self.root = self._levels[-1].tobytes()
        self._opened = cache(self._open)

    @classmethod
    def of_model(cls, model: ExactModel) -> "TensorOpener":
        """For an imported model, whose manifest has the tensor roots."""
        roots = {spec.name: model.tensor_root(spec.name) for spec in model.specs}
        return cls(model, keccak256(model.tokenizer), keccak256(model.chat_template.encode()), roots)

    def header(self) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
        words = tuple(word.to_bytes(32, "big") for word in self._weights.header.words())
        return words, siblings_of(self._levels, 0)

    def _raw(self, name: str) -> NDArray[np.uint8]:
        return np.ascontiguousarray(self._weights.tensor(name)).reshape(-1).view(np.uint8)

    def open(self, tensor: int, row: int, chunk: int) -> ChunkOpening:
        return self._opened(tensor, row, chunk)

    def _open(self, tensor: int, row: int, chunk: int) -> ChunkOpening:
        spec = self._specs[tensor - FIRST_TENSOR]
        opening = open_chunk(spec, self._raw(spec.name), row, chunk)
        path = siblings_of(self._levels, tensor)
        name_hash = keccak256(spec.name.encode())
        shape = (TYPE_CODES[spec.type], spec.rows, spec.columns)
        return ChunkOpening(opening.chunk, name_hash, *shape, tuple(opening.siblings), path)
