"""What an exact order commits to."""

from dataclasses import replace

import pytest

from core.hashing import keccak256
from core.jobs.exact import ExactTerms, ExactTermsInvalid, exact_model_hash, exact_request_hash, prompt_prefix
from core.jobs.request import JobRequest, Message, RequestInvalid, Role, Sampling, Tier, request_hash
from core.jobs.request import request_text_hash as text_hash
from protos.rpc import decode, encode

TERMS = ExactTerms(b"\x05" * 32, 12, (52_000, 40, 65_536, 2**64 - 1, 0))
REQUEST = JobRequest("exact", (Message(Role.USER, "Hello"),), Sampling(30, stop=("\n",)), Tier.EXACT, TERMS)
SALT = b"\x09" * 32


def test_every_part_of_an_exact_request_counts() -> None:
    changes = [
        replace(REQUEST, exact=None),
        replace(REQUEST, exact=replace(TERMS, prompt_hash=b"\x06" * 32)),
        replace(REQUEST, exact=replace(TERMS, prompt_tokens=13)),
        replace(REQUEST, exact=replace(TERMS, sampling=(52_000, 40, 65_536, 2**64 - 1, 1))),
        replace(REQUEST, sampling=replace(REQUEST.sampling, tokens_max=31)),
        replace(REQUEST, sampling=replace(REQUEST.sampling, stop=())),
        replace(REQUEST, messages=(Message(Role.USER, "Hullo"),)),
    ]
    hashes = {request_hash(one, SALT) for one in (REQUEST, *changes)} | {request_hash(REQUEST, b"\x08" * 32)}
    assert len(hashes) == len(changes) + 2


def test_the_text_can_stay_closed() -> None:
    """Whoever has only the hash of the text can compute the hash of the whole."""
    known = exact_request_hash(text_hash(REQUEST, SALT), TERMS, answer_tokens_max=30, ends_by_text=True)
    assert request_hash(REQUEST, SALT) == known


def test_a_prompts_prefix_hides_the_salt_and_follows_from_it() -> None:
    assert prompt_prefix(SALT) == keccak256(keccak256(b"warpgrid prompt prefix 1") + SALT)
    assert len({prompt_prefix(SALT), prompt_prefix(b"\x08" * 32), SALT}) == 3


def test_a_request_travels_with_its_terms() -> None:
    assert decode(JobRequest, encode(REQUEST)) == REQUEST
    without = replace(REQUEST, exact=None)
    assert decode(JobRequest, encode(without)) == without


def test_a_model_is_named_with_its_programs() -> None:
    assert exact_model_hash(b"\x01" * 32, b"\x02" * 32) == keccak256(b"\x01" * 32 + b"\x02" * 32)


def test_terms_out_of_range_are_refused() -> None:
    for change in ({"prompt_hash": b""}, {"prompt_tokens": 0}, {"prompt_tokens": 2**31}, {"sampling": (0,) * 4}):
        with pytest.raises(ExactTermsInvalid):
            replace(TERMS, **change)
    with pytest.raises(ExactTermsInvalid):
        replace(TERMS, sampling=(0, 0, 0, 2**64, 0))
    with pytest.raises(RequestInvalid):
        replace(REQUEST, tier=Tier.FLOAT)
