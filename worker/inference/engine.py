"""The engine seam: what a worker asks of anything that runs a language model.

An engine holds one loaded model and answers requests to it. Engines differ in tier: a float engine's answers are
trusted and sampled, an exact engine's come with a trace that proves them. The worker's job state machine knows only
this file.
"""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from core.jobs.request import JobRequest, Tier

__all__ = ["Completion", "Engine", "FinishReason", "ModelDescription", "Piece"]


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """The model that an engine holds.

    `model_id` is the name that requests call it by. `model_hash` (32 bytes) identifies its weights: orders and receipts
    name it. `context_tokens` is how many tokens prompt and answer may have together; `weights_bytes` their size.
    """

    model_id: str
    model_hash: bytes
    tier: Tier
    context_tokens: int
    weights_bytes: int


@dataclass(frozen=True, slots=True)
class Piece:
    """The next part of an answer, as soon as it is there. Pieces joined are the answer."""

    text: str


class FinishReason(StrEnum):
    """Why an answer ended; the values are OpenAI's."""

    STOP = "stop"
    LENGTH = "length"


@dataclass(frozen=True, slots=True)
class Completion:
    """The end of an answer, and what is billed for it.

    `output_tokens` counts the end-of-turn token where the model made one. `trace_root` commits to everything that was
    computed, and `tokens` is the answer that it commits to; zero and empty where no commitment was asked for, and on
    the float tier.
    """

    finish_reason: FinishReason
    input_tokens: int
    output_tokens: int
    trace_root: bytes = bytes(32)
    tokens: tuple[int, ...] = ()


class Engine(Protocol):
    """One loaded model. Implementations: `worker.inference.llama` (float), `worker.inference.exact.engine` (exact)."""

    @property
    def model(self) -> ModelDescription:
        """What is loaded."""

    def generate(
        self, request: JobRequest, salt: bytes | None = None, expected: Sequence[int] = ()
    ) -> AsyncGenerator[Piece | Completion, None]:
        """Answer one request: pieces as they are made, then exactly one Completion.

        With the request's `salt` an exact engine commits to what it computes, under the request's hash. `expected` is
        an answer that somebody else gave: an exact engine computes it like a prompt and goes its own way from the first
        token that it would not have chosen, so the outcome is the same, and known at the price of a prompt if it was
        right.

        The caller has matched model and tier. The same request to the same model gives the same answer on the same
        machine and build; on an exact engine, on every machine. Closing the generator (or cancelling the task that
        iterates it) stops the work within one token and frees its place.

        Raises ContextExceeded or another RequestError before the first piece when the request cannot be served,
        EngineBusy when too many wait, EngineFailed at any point.
        """

    async def close(self) -> None:
        """Let running requests end, refuse waiting ones, free the model. Calling it again does nothing."""
