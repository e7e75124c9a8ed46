import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conformance import exact_scalar as scalar
from worker.inference.errors import SamplingInvalid
from worker.inference.exact.native import native_choose
from worker.inference.exact.sampling import GREEDY, Sampling, choose, philox4x32, uniform

TRUNCATIONS = ([0, 656, 65_536, 6_553_600], [0, 1, 40, 300, 2_999, 5_000], [1, 30_000, 65_000, 65_535, 65_536])


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [  # from Random123's kat_vectors
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        (
            (0xFFFFFFFF,) * 4,
            (0xFFFFFFFF,) * 2,
            (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
        ),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_known_answers(counter: tuple[int, int, int, int], key: tuple[int, int], words: tuple[int, ...]) -> None:
    assert philox4x32(counter, key) == words


def test_greedy_takes_the_lowest_index_of_the_largest() -> None:
    assert choose(np.array([3, 7, 7, -2]), GREEDY, 0) == 1


@given(
    logits=st.lists(st.integers(-(2**31) + 1, 2**31 - 1), min_size=1, max_size=40),
    temperature=st.one_of(st.just(0), st.integers(656, 6_553_600)),
    top_k=st.integers(0, 50),
    top_p=st.integers(1, 65536),
    seed=st.integers(0, 2**64 - 1),
    position=st.integers(0, 131_072),
)
@settings(max_examples=200)
def test_agrees_with_the_scalar_specification(
    logits: list[int], temperature: int, top_k: int, top_p: int, seed: int, position: int
) -> None:
    sampling = Sampling(temperature_q16=temperature, top_k=top_k, top_p_q16=top_p, seed=seed, choice=3)
    expected = scalar.choose(
        logits, temperature_q16=temperature, top_k=top_k, top_p_q16=top_p, seed=seed, choice=3, position=position
    )
    assert choose(np.array(logits), sampling, position) == expected
    assert native_choose(np.array(logits, np.int32), sampling, position) == expected


@pytest.mark.parametrize("spread", [0, 40, 2_000_000])
def test_a_large_vocabulary_gives_the_same_token_natively(spread: int) -> None:
    """Against the numpy reference: more logits than a vector or a sorted piece holds, many of them equal."""
    generator = np.random.default_rng(spread)
    for size in (255, 257, 3001):
        logits = generator.integers(-spread, spread + 1, size).astype(np.int32)
        for number in range(60):
            temperature, top_k, top_p = (int(generator.choice(some)) for some in TRUNCATIONS)
            sampling = Sampling(temperature_q16=temperature, top_k=top_k, top_p_q16=top_p, seed=number)
            assert native_choose(logits, sampling, number) == choose(logits, sampling, number), sampling


def test_draws_follow_the_softmax() -> None:
    """Chi-square over 4,000 draws from five tokens, at temperature 0.8."""
    logits = np.array([1.0, 0.5, 0.0, -1.0, 0.25])
    sampling = Sampling(temperature_q16=52429, seed=7)
    fixed = np.rint(logits * 65536).astype(np.int64)
    counts = np.bincount([choose(fixed, sampling, position) for position in range(4000)], minlength=5)
    expected = np.exp(logits / 0.8) / np.exp(logits / 0.8).sum() * 4000
    assert ((counts - expected) ** 2 / expected).sum() < 18.5  # 4 degrees of freedom, p = 0.001


def test_truncation_keeps_the_likeliest() -> None:
    logits = np.array([0, 65536, 65536, 65536 * 2, 65535])
    drawn_top_k = {choose(logits, Sampling(655_360, top_k=2, seed=1), position) for position in range(200)}
    assert drawn_top_k == {3, 1}  # of two equal logits the lower index comes first
    drawn_top_p = {choose(logits, Sampling(65536, top_p_q16=30_000, seed=1), position) for position in range(200)}
    assert drawn_top_p == {3, 1}
    drawn_all = {choose(logits, Sampling(655_360, seed=1), position) for position in range(200)}
    assert drawn_all == {0, 1, 2, 3, 4}


def test_every_input_moves_the_draw() -> None:
    draws = {uniform(0, 0, 0), uniform(1, 0, 0), uniform(2**32, 0, 0), uniform(0, 1, 0), uniform(0, 0, 1)}
    assert len(draws) == 5


@pytest.mark.parametrize(
    "parameters",
    [
        {"temperature_q16": 655},
        {"temperature_q16": 6_553_601},
        {"temperature_q16": -1},
        {"top_k": -1},
        {"top_p_q16": 0},
        {"top_p_q16": 65537},
        {"seed": 2**64},
        {"choice": -1},
    ],
)
def test_parameters_out_of_range_are_refused(parameters: dict[str, int]) -> None:
    with pytest.raises(SamplingInvalid):
        Sampling(**parameters)


@pytest.mark.parametrize("spread", [2_000, 60_000, 400_000])
def test_native_choice_is_the_same_on_whole_vocabularies(spread: int) -> None:
    """Flat and peaked distributions, so that top_p keeps from one to tens of thousands of tokens."""
    generator = np.random.default_rng(spread)
    for case in range(30):
        logits = (generator.normal(size=49_152) * spread).astype(np.int32)
        sampling = Sampling(
            temperature_q16=int(generator.choice([0, 656, 30_000, 65_536, 200_000])),
            top_k=int(generator.choice([0, 1, 40, 5_000])),
            top_p_q16=int(generator.choice([1, 20_000, 62_000, 65_535, 65_536])),
            seed=int(generator.integers(2**63)),
        )
        assert native_choose(logits, sampling, case) == choose(logits, sampling, case), sampling
