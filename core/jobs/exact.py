"""What an exact order commits to, so that a contract can judge the answer: the model with its programs, and the request
as the machine reads it.

A prompt stays private behind its salt: the text is hashed with the salt itself, the tokens with a prefix that follows
from it, so that whoever shows the tokens to a contract does not show the salt. zk/contracts/Terms.sol is the twin.
Knows nothing of tokenizers, traces or programs.
"""

from dataclasses import dataclass

from core.errors import InvalidInput
from core.hashing import keccak256

__all__ = ["ExactTerms", "ExactTermsInvalid", "exact_model_hash", "exact_request_hash", "prompt_prefix"]

_REQUEST_TAG = keccak256(b"warpgrid exact request 1")
_PREFIX_TAG = keccak256(b"warpgrid prompt prefix 1")
_TOKENS_MAX = 2**31


class ExactTermsInvalid(InvalidInput):
    """Terms that no exact answer could have."""

    code = "invalid_exact_terms"


@dataclass(frozen=True, slots=True)
class ExactTerms:
    """The machine's side of a request: keccak-256 of the prompt's prefix and tokens (u32, little-endian), their number,
    and the sampling words of docs/exact-inference.md section 5 (temperature_q16, top_k, top_p_q16, seed, choice).

    Raises ExactTermsInvalid on construction when a field is out of range.
    """

    prompt_hash: bytes
    prompt_tokens: int
    sampling: tuple[int, int, int, int, int]

    def __post_init__(self) -> None:
        if len(self.prompt_hash) != 32:
            raise ExactTermsInvalid(f"prompt_hash has {len(self.prompt_hash)} bytes, expected 32")
        if not 0 < self.prompt_tokens < _TOKENS_MAX:
            raise ExactTermsInvalid(f"prompt_tokens is {self.prompt_tokens}, expected 1 to {_TOKENS_MAX - 1}")
        if len(self.sampling) != 5 or any(not 0 <= word < 2**64 for word in self.sampling):
            raise ExactTermsInvalid("sampling has five words of 64 bits")


def prompt_prefix(salt: bytes) -> bytes:
    """The 32 bytes before a prompt's tokens wherever they are hashed: without the request's salt, a guess of the prompt
    can be confirmed by no hash."""
    return keccak256(_PREFIX_TAG + salt)


def exact_request_hash(text_hash: bytes, terms: ExactTerms, *, answer_tokens_max: int, ends_by_text: bool) -> bytes:
    """What an exact order, its receipt and its trace name a request by. `text_hash` is the salted hash of its text;
    `ends_by_text` says whether a stop string may end the answer."""
    numbers = (terms.prompt_tokens, *terms.sampling, answer_tokens_max, int(ends_by_text))
    words = b"".join(number.to_bytes(32, "big") for number in numbers)
    return keccak256(_REQUEST_TAG + text_hash + terms.prompt_hash + words)


def exact_model_hash(model_root: bytes, program_root: bytes) -> bytes:
    """What an exact order and its receipt name a model by: weights, and the programs that follow from the header."""
    return keccak256(model_root + program_root)
