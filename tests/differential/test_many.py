"""Mutated programs: blocks against single steps on the CPU, and the CPU against a GPU where there is one."""

import numpy as np
import pytest

from core.errors import GpuUnavailable
from core.gpu import Device
from tests.differential.many import compare_engines
from tests.differential.mutation import Corpus
from worker.evm.comparison import differing_rows
from worker.evm.engine import Engine
from worker.evm.gpu_engine import GpuEngine

CORPUS_CASES, WORLDS = 120, 400
WORLDS_CONFORMANCE, BATCHES_CONFORMANCE = 4_000, 12
WORLDS_GPU = 8_000


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return Corpus.of(7_000_000, CORPUS_CASES)


def test_equal_seeds_make_equal_batches(corpus: Corpus) -> None:
    one, again, other = (corpus.batch(seed, 50) for seed in (1, 1, 2))
    assert one.batch.transactions == again.batch.transactions
    engine = Engine(threads=1)
    outcomes = engine.run(one.base, one.batch)
    assert not len(differing_rows(outcomes, engine.run(again.base, again.batch)))
    assert one.batch.transactions != other.batch.transactions


def test_differing_rows_finds_a_changed_byte(corpus: Corpus) -> None:
    mutated = corpus.batch(3, 50)
    engine = Engine(threads=1)
    one, other = (engine.run(mutated.base, mutated.batch) for _ in range(2))
    row = int(np.argmax(other.section_bytes()))
    arena = other.arena.copy()
    arena[int(other.results["output"][row]) + 40] ^= 1
    other.results["gas_used"][0] += 1
    assert differing_rows(one, type(other)(other.results, arena)).tolist() == sorted({0, row})


def test_what_an_engine_ran_before_leaves_no_byte_behind(corpus: Corpus) -> None:
    used = Engine(threads=1)
    for seed in (4, 5, 6):
        mutated = corpus.batch(seed, 100)
        outcomes = used.run(mutated.base, mutated.batch)
        fresh = Engine(threads=1).run(mutated.base, mutated.batch)
        assert outcomes.results["code_bytes"].any()
        assert not len(differing_rows(outcomes, fresh))


def test_blocks_and_single_steps_have_the_same_effects(corpus: Corpus) -> None:
    tally = compare_engines(corpus, 11, WORLDS, Engine(threads=1), Engine(threads=1))
    assert tally.different == []
    assert tally.programs > 2 * WORLDS
    assert min(tally.statuses[name] for name in ("SUCCESS", "HALTED", "REVERTED", "REJECTED")) > 5


@pytest.mark.conformance
def test_many_blocks_and_single_steps() -> None:
    corpus, engines = Corpus.of(8_000_000, 1_500), (Engine(threads=1), Engine(threads=1))
    tallies = [compare_engines(corpus, seed, WORLDS_CONFORMANCE, *engines) for seed in range(BATCHES_CONFORMANCE)]
    assert [one.different for one in tallies] == [[]] * BATCHES_CONFORMANCE
    assert sum(one.programs for one in tallies) > 100_000


@pytest.mark.gpu
def test_a_gpu_gives_the_cpus_bytes(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> None:
    cpu = Engine()
    try:
        gpu = GpuEngine(Device(0, tmp_path_factory.mktemp("kernels")), cpu)
    except GpuUnavailable as error:
        pytest.skip(str(error))
    tally = compare_engines(corpus, 13, WORLDS_GPU, cpu, gpu)
    assert tally.different == []
    assert tally.programs > 2 * WORLDS_GPU
