"""What a client asks of a model: frozen, validated, integers only, with one canonical byte form that is hashed.

Owns the request's shape and limits. Knows nothing of JSON (`market.requests`), of engines or of prices.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum

from core import rlp
from core.errors import InvalidInput
from core.hashing import keccak256
from core.jobs.exact import ExactTerms, exact_request_hash

__all__ = [
    "CONTENT_BYTES_MAX",
    "MESSAGES_MAX",
    "MODEL_NAME_BYTES_MAX",
    "OUTPUT_TOKENS_MAX",
    "SALT_BYTES",
    "SEED_MAX",
    "STOP_BYTES_MAX",
    "STOP_MAX",
    "TEMPERATURE_MILLI_MAX",
    "TOP_K_MAX",
    "TOP_P_MILLI_MAX",
    "JobRequest",
    "Message",
    "RequestInvalid",
    "Role",
    "Sampling",
    "Tier",
    "decode_tokens",
    "encode_tokens",
    "output_hash",
    "request_hash",
    "request_text_hash",
]

MODEL_NAME_BYTES_MAX = 256
MESSAGES_MAX = 1024
CONTENT_BYTES_MAX = 512 * 1024
OUTPUT_TOKENS_MAX = 32_768
STOP_MAX = 4
STOP_BYTES_MAX = 256
SEED_MAX = 2**63 - 1
TEMPERATURE_MILLI_MAX = 2_000
TOP_P_MILLI_MAX = 1_000
TOP_K_MAX = 1_000_000
SALT_BYTES = 32

_REQUEST_TAG = b"warpgrid request 1"
_OUTPUT_TAG = b"warpgrid output 1"


class RequestInvalid(InvalidInput):
    """A request that no engine could take. `field` names what to change, in the request's own terms."""

    code = "invalid_request"

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field} {problem}")
        self.field = field


class Tier(IntEnum):
    """What a receipt is worth. FLOAT answers are trusted and sampled; EXACT ones can be proven, or proven wrong."""

    FLOAT = 0
    EXACT = 1


class Role(StrEnum):
    """Who speaks in a conversation."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are picked. Thousandths, so that a request has one meaning and one hash on every machine.

    `temperature_milli` 0 is greedy, and then the other settings mean nothing. `top_p_milli` 1000 and `top_k` 0 switch
    those filters off. `stop` strings end the answer and are not part of it.
    """

    tokens_max: int = 256
    temperature_milli: int = 0
    top_p_milli: int = 1_000
    top_k: int = 0
    seed: int = 0
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _require_range("max_tokens", self.tokens_max, range(1, OUTPUT_TOKENS_MAX + 1))
        _require_fraction("temperature", self.temperature_milli, range(TEMPERATURE_MILLI_MAX + 1))
        _require_fraction("top_p", self.top_p_milli, range(1, TOP_P_MILLI_MAX + 1))
        _require_range("top_k", self.top_k, range(TOP_K_MAX + 1))
        _require_range("seed", self.seed, range(SEED_MAX + 1))
        if len(self.stop) > STOP_MAX:
            raise RequestInvalid("stop", f"has {len(self.stop)} strings, at most {STOP_MAX} are allowed")
        for one in self.stop:
            _require_length("stop", one, range(1, STOP_BYTES_MAX + 1))


@dataclass(frozen=True, slots=True)
class JobRequest:
    """A conversation for a model to continue. Raises RequestInvalid on construction when a limit is broken.

    `exact`, in the exact tier only, says what the conversation is in tokens: with it the answer can be disputed.
    """

    model: str
    messages: tuple[Message, ...]
    sampling: Sampling = field(default_factory=Sampling)
    tier: Tier = Tier.FLOAT
    exact: ExactTerms | None = None

    def __post_init__(self) -> None:
        if self.exact is not None and self.tier != Tier.EXACT:
            raise RequestInvalid("exact", "belongs to the exact tier only")
        _require_length("model", self.model, range(1, MODEL_NAME_BYTES_MAX + 1))
        if not 1 <= len(self.messages) <= MESSAGES_MAX:
            raise RequestInvalid("messages", f"has {len(self.messages)} entries, expected 1 to {MESSAGES_MAX}")
        content_bytes = 0
        for index, message in enumerate(self.messages):
            content_bytes += _utf8_length(f"messages[{index}].content", message.content)
        if content_bytes > CONTENT_BYTES_MAX:
            raise RequestInvalid("messages", f"hold {content_bytes} bytes of text, at most {CONTENT_BYTES_MAX} fit")


def request_hash(request: JobRequest, salt: bytes) -> bytes:
    """The 32-byte hash that an order and a receipt name a request by.

    The salt (32 random bytes that only the parties to the job know) keeps a short prompt from being guessed. Where the
    request has exact terms, they are hashed in, in a way that a contract can open without the text.
    """
    text_hash = request_text_hash(request, salt)
    if request.exact is None:
        return text_hash
    sampling = request.sampling
    return exact_request_hash(
        text_hash, request.exact, answer_tokens_max=sampling.tokens_max, ends_by_text=bool(sampling.stop)
    )


def request_text_hash(request: JobRequest, salt: bytes) -> bytes:
    """The salted hash of everything in a request but its exact terms."""
    assert len(salt) == SALT_BYTES, "a salt is 32 bytes"
    sampling = request.sampling
    numbers = (
        int(request.tier),
        sampling.tokens_max,
        sampling.temperature_milli,
        sampling.top_p_milli,
        sampling.top_k,
        sampling.seed,
    )
    fields: list[rlp.Item] = [
        _REQUEST_TAG,
        salt,
        request.model.encode(),
        [[message.role.value.encode(), message.content.encode()] for message in request.messages],
        [rlp.encode_int(number) for number in numbers],
        [one.encode() for one in sampling.stop],
    ]
    return keccak256(rlp.encode(fields))


def output_hash(output: str, salt: bytes) -> bytes:
    """The 32-byte hash that a receipt names an answer by, under the same salt as its request."""
    assert len(salt) == SALT_BYTES, "a salt is 32 bytes"
    return keccak256(rlp.encode([_OUTPUT_TAG, salt, output.encode()]))


def encode_tokens(tokens: Sequence[int]) -> bytes:
    """An answer's tokens as they travel: u32 each, little-endian."""
    return b"".join(token.to_bytes(4, "little") for token in tokens)


def decode_tokens(raw: bytes) -> tuple[int, ...]:
    """The inverse of `encode_tokens`. Raises RequestInvalid when the bytes are not whole tokens."""
    if len(raw) % 4:
        raise RequestInvalid("tokens", f"are {len(raw)} bytes, not 4 each")
    return tuple(int.from_bytes(raw[start : start + 4], "little") for start in range(0, len(raw), 4))


def _require_fraction(field_name: str, milli: int, allowed: range) -> None:
    """Thousandths, told as whoever asked wrote them."""
    if milli not in allowed:
        least, most = allowed[0] / 1000, allowed[-1] / 1000
        raise RequestInvalid(field_name, f"is {milli / 1000:g}, expected {least:g} to {most:g}")


def _require_range(field: str, value: int, allowed: range) -> None:
    if value not in allowed:
        raise RequestInvalid(field, f"is {value}, expected {allowed.start} to {allowed.stop - 1}")


def _require_length(field: str, text: str, allowed: range) -> None:
    length = _utf8_length(field, text)
    if length not in allowed:
        raise RequestInvalid(field, f"is {length} bytes long, expected {allowed.start} to {allowed.stop - 1}")


def _utf8_length(field: str, text: str) -> int:
    try:
        return len(text.encode())
    except UnicodeEncodeError as error:
        raise RequestInvalid(field, f"is not valid Unicode: {error.reason} at character {error.start}") from error
