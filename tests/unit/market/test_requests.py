"""Requests: OpenAI's form in, ours out; limits; hashes that hide and bind."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.jobs.request import (
    CONTENT_BYTES_MAX,
    MESSAGES_MAX,
    OUTPUT_TOKENS_MAX,
    SEED_MAX,
    JobRequest,
    Message,
    RequestInvalid,
    Role,
    Sampling,
    Tier,
    output_hash,
    request_hash,
)
from market.requests import parse_chat_request

BODY: dict[str, Any] = {"model": "smollm2", "messages": [{"role": "user", "content": "Hi"}]}
SALT = b"\x07" * 32


def parse(**changes: object) -> JobRequest:
    return parse_chat_request({**BODY, **changes}, seed_default=99).request


def test_defaults_are_openais() -> None:
    chat = parse_chat_request(BODY, seed_default=99)
    assert chat.request == JobRequest(
        "smollm2", (Message(Role.USER, "Hi"),), Sampling(256, 1000, 1000, 0, 99), Tier.FLOAT
    )
    assert (chat.stream, chat.include_usage) == (False, False)


def test_everything_that_can_be_said() -> None:
    body = {
        "model": "m",
        "messages": [
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "assistant", "content": "c", "tool_calls": []},
        ],
        "max_tokens": 5,
        "max_completion_tokens": 7,
        "temperature": 0.7,
        "top_p": 0.95,
        "top_k": 40,
        "seed": 3,
        "stop": "x",
        "stream": True,
        "stream_options": {"include_usage": True},
        "user": "ignored",
        "n": 1,
        "tools": [],
    }
    chat = parse_chat_request(body, seed_default=0, tier=Tier.EXACT)
    roles = (Role.SYSTEM, Role.USER, Role.ASSISTANT)
    messages = tuple(map(Message, roles, ("Be brief.", "ab", "c")))
    assert chat.request == JobRequest("m", messages, Sampling(7, 700, 950, 40, 3, ("x",)), Tier.EXACT)
    assert (chat.stream, chat.include_usage) == (True, True)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"model": None}, "model"),
        ({"model": ""}, "model"),
        ({"model": "x" * 257}, "model"),
        ({"messages": []}, "messages"),
        ({"messages": "Hi"}, "messages"),
        ({"messages": ["Hi"]}, "messages[0]"),
        ({"messages": [{"role": "tool", "content": ""}]}, "messages[0].role"),
        ({"messages": [{"role": ["user"], "content": ""}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": "x" * (CONTENT_BYTES_MAX + 1)}]}, "messages"),
        ({"messages": BODY["messages"] * (MESSAGES_MAX + 1)}, "messages"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": OUTPUT_TOKENS_MAX + 1}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": 1e300}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"seed": -1}, "seed"),
        ({"seed": SEED_MAX + 1}, "seed"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"stop": [""]}, "stop"),
        ({"stop": [1]}, "stop"),
        ({"stop": 1}, "stop"),
        ({"n": 2}, "n"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"presence_penalty": 0.5}, "presence_penalty"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": 1}, "stream_options"),
    ],
)
def test_what_cannot_be_served_is_named(changes: dict[str, object], field: str) -> None:
    with pytest.raises(RequestInvalid) as refused:
        parse(**changes)
    assert refused.value.field == field


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
FIELDS = (
    *BODY,
    "max_tokens",
    "temperature",
    "top_p",
    "top_k",
    "seed",
    "stop",
    "stream",
    "stream_options",
    "n",
    "tools",
)


@given(st.dictionaries(st.sampled_from(FIELDS), json_values) | json_values)
def test_any_json_is_read_or_refused(body: object) -> None:
    merged = {**BODY, **body} if isinstance(body, dict) else body
    try:
        request = parse_chat_request(merged, seed_default=1).request
    except RequestInvalid as refused:
        named = refused.field
    else:
        named = request.model
    assert named


texts = st.text(max_size=20)
requests = st.builds(
    JobRequest,
    model=st.text(min_size=1, max_size=20),
    messages=st.lists(st.builds(Message, st.sampled_from(Role), texts), min_size=1, max_size=3).map(tuple),
    sampling=st.builds(
        Sampling,
        tokens_max=st.integers(1, 9),
        temperature_milli=st.integers(0, 9),
        top_p_milli=st.integers(1, 9),
        top_k=st.integers(0, 9),
        seed=st.integers(0, 9),
        stop=st.lists(st.text(min_size=1, max_size=3), max_size=2).map(tuple),
    ),
    tier=st.sampled_from(Tier),
)


@given(requests, requests, st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32))
def test_a_hash_names_one_request_under_one_salt(a: JobRequest, b: JobRequest, salt: bytes, other: bytes) -> None:
    assert (request_hash(a, salt) == request_hash(b, salt)) == (a == b)
    assert (request_hash(a, salt) == request_hash(a, other)) == (salt == other)


def test_request_and_output_hashes_are_fixed() -> None:
    """Receipts on chain outlive this code: these may never change."""
    request = JobRequest("smollm2", (Message(Role.USER, "What is the capital of France?"),), Sampling(stop=("\n",)))
    assert request_hash(request, SALT).hex() == "e84eb715166ccf5df60e077ac45a648f2e3ccf1ad7a77932cd95703f9f983897"
    assert (
        output_hash("The capital of France is Paris.", SALT).hex()
        == "e136f8b78e72c77e84ea2199c674714cc71818b98696d111331540af295bcace"
    )
    assert output_hash("", SALT) != output_hash("", bytes(32))
