"""OpenAI's JSON form of a request, into ours (API reference "Create chat completion", read 2026-11).

What would change the answer and is not supported is refused by name; what would not (user, metadata, store, ...) is let
pass. Knows nothing of HTTP.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal

from core.jobs.request import JobRequest, Message, RequestInvalid, Role, Sampling, Tier

__all__ = ["OUTPUT_TOKENS_DEFAULT", "ChatRequest", "parse_chat_request"]

OUTPUT_TOKENS_DEFAULT = 256

_ROLES = {"system": Role.SYSTEM, "developer": Role.SYSTEM, "user": Role.USER, "assistant": Role.ASSISTANT}

# Fields that change the answer and that we do not support, with the values that ask for nothing.
_UNSUPPORTED: Mapping[str, tuple[object, ...]] = {
    "audio": (None,),
    "frequency_penalty": (None, 0),
    "function_call": (None, "none"),
    "functions": (None, []),
    "logit_bias": (None, {}),
    "logprobs": (None, False),
    "modalities": (None, ["text"]),
    "n": (None, 1),
    "presence_penalty": (None, 0),
    "response_format": (None, {"type": "text"}),
    "tool_choice": (None, "none", "auto"),
    "tools": (None, []),
    "top_logprobs": (None, 0),
}


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A request, and how its answer is to be delivered."""

    request: JobRequest
    stream: bool
    include_usage: bool


def parse_chat_request(body: object, *, seed_default: int, tier: Tier = Tier.FLOAT) -> ChatRequest:
    """Read the JSON body of POST /v1/chat/completions.

    Fractions are rounded to thousandths. A client that samples without a seed gets `seed_default`, which the caller
    draws, so that its answer can be repeated all the same. Raises RequestInvalid naming the field.
    """
    if not isinstance(body, Mapping):
        raise RequestInvalid("body", "must be a JSON object")
    for field, harmless in _UNSUPPORTED.items():
        if body.get(field) not in harmless:
            raise RequestInvalid(field, "is not supported")
    model = body.get("model")
    if not isinstance(model, str):
        raise RequestInvalid("model", "must be a string")
    options = body.get("stream_options")
    if options is not None and not isinstance(options, Mapping):
        raise RequestInvalid("stream_options", "must be an object")
    request = JobRequest(model, _messages(body.get("messages")), _sampling(body, seed_default), tier)
    include_usage = _boolean("stream_options.include_usage", (options or {}).get("include_usage"))
    return ChatRequest(request, _boolean("stream", body.get("stream")), include_usage)


def _messages(value: object) -> tuple[Message, ...]:
    if not isinstance(value, list):
        raise RequestInvalid("messages", "must be a list")
    return tuple(_message(f"messages[{index}]", one) for index, one in enumerate(value))


def _message(field: str, value: object) -> Message:
    if not isinstance(value, Mapping):
        raise RequestInvalid(field, "must be an object")
    role = value.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise RequestInvalid(f"{field}.role", f"must be one of {', '.join(_ROLES)}")
    if value.get("tool_calls"):
        raise RequestInvalid(f"{field}.tool_calls", "is not supported")
    return Message(_ROLES[role], _content(f"{field}.content", value.get("content")))


def _content(field: str, value: object) -> str:
    """Text, or a list of parts that are all text."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise RequestInvalid(field, "must be a string or a list of text parts")
    texts = []
    for index, part in enumerate(value):
        text = part.get("text") if isinstance(part, Mapping) and part.get("type") == "text" else None
        if not isinstance(text, str):
            raise RequestInvalid(f"{field}[{index}]", "must be a part of type text: no other kind is supported")
        texts.append(text)
    return "".join(texts)


def _sampling(body: Mapping[str, object], seed_default: int) -> Sampling:
    tokens_max = _integer("max_completion_tokens", body.get("max_completion_tokens"))
    if tokens_max is None:
        tokens_max = _integer("max_tokens", body.get("max_tokens"))
    temperature_milli = _milli("temperature", body.get("temperature"))
    top_p_milli = _milli("top_p", body.get("top_p"))
    top_k = _integer("top_k", body.get("top_k"))
    seed = _integer("seed", body.get("seed"))
    return Sampling(
        tokens_max=OUTPUT_TOKENS_DEFAULT if tokens_max is None else tokens_max,
        temperature_milli=1000 if temperature_milli is None else temperature_milli,
        top_p_milli=1000 if top_p_milli is None else top_p_milli,
        top_k=top_k or 0,
        seed=seed_default if seed is None else seed,
        stop=_stop(body.get("stop")),
    )


def _stop(value: object) -> tuple[str, ...]:
    values: Sequence[object] = [] if value is None else value if isinstance(value, list) else [value]
    strings = tuple(one for one in values if isinstance(one, str))
    if len(strings) != len(values):
        raise RequestInvalid("stop", "must be a string or a list of strings")
    return strings


def _integer(field: str, value: object) -> int | None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    raise RequestInvalid(field, "must be an integer")


def _milli(field: str, value: object) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RequestInvalid(field, "must be a number")
    number = Decimal(str(value))
    if not number.is_finite() or abs(number) > 1_000_000:
        raise RequestInvalid(field, "is not a number of a sensible size")
    return int((number * 1000).to_integral_value(ROUND_HALF_EVEN))


def _boolean(field: str, value: object) -> bool:
    if value is None or isinstance(value, bool):
        return bool(value)
    raise RequestInvalid(field, "must be true or false")
