"""The exact engine's speed on a CPU, next to llama.cpp at Q8_0 on the same model and prompt.

    python -m tests.bench.inference_cpu [--rival-python PYTHON] [--model DIRECTORY] [--isa NAME] [--threads N]
                                        [--repeats N]
    python -m tests.bench.inference_cpu --tracing [--model DIRECTORY] [--isa NAME] [--threads N] [--repeats N]

PYTHON is an interpreter with llama-cpp-python built for this processor:
    CMAKE_ARGS=-DGGML_NATIVE=ON pip install --no-binary llama-cpp-python llama-cpp-python
Both run in turn, one request each, on 1 and on 2 threads: 128 tokens of prompt and 64 generated, then 512 tokens of
prompt. Each figure is the median (and the best) of the repeats, in tokens a second of wall time and of the process's
CPU time (times the number of threads, so that it equals wall time on a machine of one's own). Generation also has the
quickest tenth of its single tokens: on a shared machine those are the ones that nobody disturbed. First the engine's
tokens and every trace row are held against the numpy reference.

With --tracing, instead: the same passes with tracing off and on in turn (answers token by token, each token twice),
microseconds a token of wall and CPU time, medians, and the median of the pairs' ratios.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from tests.bench.quality import REPOSITORY, RESULTS
from worker.inference.exact import reference
from worker.inference.exact.convert import Recipe, import_checkpoint, open_checkpoint
from worker.inference.exact.model import ExactModel, ModelStore
from worker.inference.exact.native import NativeEngine, instruction_sets, sequence_rows
from worker.inference.exact.sampling import Sampling
from worker.inference.exact.tokenizer import ChatTokenizer
from worker.inference.exact.tracing import Tracing
from worker.inference.packaged import packaged_model_file

__all__ = ["main"]

GENERATED_TOKENS = 64
JOBS = ((128, GENERATED_TOKENS), (512, 0))  # tokens of the prompt, tokens to generate
PAGES = range(10)
GREEDY = Sampling()

Answer = dict[str, Any]
Rival = Callable[[list[int], int, int], Answer]  # prompt, tokens to generate, threads


def answer(engine: NativeEngine, prompt: list[int], generate: int) -> Answer:
    """One request, timed as the rival times it: (wall, CPU) seconds of both phases, and the tokens."""

    def next_token(tokens: list[int], position: int) -> int:
        outcome = engine.forward(sequence_rows(tokens, position, PAGES))
        return outcome.choose(0, GREEDY, position + len(tokens))

    started = time.perf_counter(), time.process_time()
    tokens = [next_token(prompt, 0)]
    middle = time.perf_counter(), time.process_time()
    steps = [middle[0]]
    for position in range(len(prompt), len(prompt) + generate):
        tokens.append(next_token(tokens[-1:], position))
        steps.append(time.perf_counter())
    ended = time.perf_counter(), time.process_time()
    return {
        "prompt_s": [b - a for a, b in zip(started, middle, strict=True)],
        "generate_s": [b - a for a, b in zip(middle, ended, strict=True)],
        "steps_s": np.diff(steps).tolist(),
        "tokens": tokens,
    }


def check(model: ExactModel, engine: NativeEngine, prompt: list[int], tokens: list[int]) -> int:
    """Numbers compared with the reference's: greedy tokens, residual and key-value rows of prompt and answer."""
    fed = prompt + tokens[:-1]
    cache = reference.Cache(model.header)
    expected = reference.forward(model, cache, fed)
    assert expected.logits[len(prompt) - 1 :].argmax(axis=1).tolist() == tokens, "the reference chooses other tokens"
    ours = engine.forward(sequence_rows(fed, 0, PAGES), trace=Tracing.ROWS)
    assert ours.boundaries is not None
    assert ours.kv_rows is not None
    assert np.array_equal(ours.boundaries.swapaxes(0, 1), expected.residuals), "residual rows differ"
    for layer in range(model.header.layers):
        rows = b"".join(cache.row_bytes(layer, position) for position in range(len(fed)))
        assert ours.kv_rows[:, layer].tobytes() == rows, f"key-value rows of layer {layer} differ"
    return len(tokens) + ours.boundaries.size + ours.kv_rows.size


@contextmanager
def rival(python: str, checkpoint: Path) -> Iterator[Rival]:
    """llama.cpp in a process of its own, in our process group."""
    RESULTS.mkdir(exist_ok=True)
    script, weights = Path(__file__).with_name("_rival_llama.py"), RESULTS / f"{checkpoint.stem}-q8_0.gguf"
    process = subprocess.Popen(
        [python, str(script), str(checkpoint), str(weights)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    requests, answers = process.stdin, process.stdout

    def ask(prompt: list[int], generate: int, threads: int) -> Answer:
        requests.write(json.dumps({"prompt": prompt, "generate": generate, "threads": threads}) + "\n")
        requests.flush()
        result: Answer = json.loads(answers.readline())
        return result

    try:
        yield ask
    finally:
        requests.close()
        process.wait()


def speeds(samples: list[Answer], phase: str, tokens: int, threads: int) -> dict[str, float]:
    wall, cpu = (np.array([one[phase][which] for one in samples]) for which in (0, 1))
    result = {
        "wall_median": round(tokens / float(np.median(wall)), 1),
        "wall_best": round(tokens / float(wall.min()), 1),
        "cpu_median": round(tokens * threads / float(np.median(cpu)), 1),
        "cpu_best": round(tokens * threads / float(cpu.min()), 1),
    }
    if phase == "generate_s":
        steps = np.concatenate([one["steps_s"] for one in samples])
        result["wall_quickest_tenth"] = round(1 / float(np.quantile(steps, 0.1)), 1)
    return result


def compared(
    engine: NativeEngine,
    ask: Callable[[list[int], int, int], Answer] | None,
    text: list[int],
    threads: int,
    repeats: int,
) -> Iterator[dict[str, Any]]:
    """Runs ours and theirs in turn; the first round of each warms up and does not count."""
    samples: dict[tuple[str, int], list[Answer]] = {}
    for repeat in range(repeats + 1):
        for length, generate in JOBS:
            prompt = text[:length]
            results = {"ours": answer(engine, prompt, generate)}
            if ask:
                results["theirs"] = ask(prompt, generate, threads)
            for who, one in results.items():
                if repeat:
                    samples.setdefault((who, length), []).append(one)
    for length, generate in JOBS:
        for phase, tokens in (("prompt_s", length), ("generate_s", generate)):
            if tokens == 0:
                continue
            record: dict[str, Any] = {"phase": phase.removesuffix("_s"), "prompt": length, "threads": threads}
            for who in ("ours", "theirs"):
                if (who, length) in samples:
                    record[who] = speeds(samples[who, length], phase, tokens, threads)
            if ask:
                record["ratio"] = {key: round(record["ours"][key] / record["theirs"][key], 2) for key in record["ours"]}
            yield record


def off_and_on(engine: NativeEngine, text: list[int], threads: int, repeats: int) -> Iterator[dict[str, Any]]:
    """What hashing every position costs. The first round warms up and does not count."""

    def seconds(tokens: list[int], start: int, trace: Tracing) -> tuple[float, float]:
        began = time.perf_counter(), time.process_time()
        outcome = engine.forward(sequence_rows(tokens, start, PAGES), trace=trace)
        outcome.choose(0, GREEDY, start + len(tokens))
        return time.perf_counter() - began[0], time.process_time() - began[1]

    def pairs(tokens: list[int], start: int, count: int) -> list[list[tuple[float, float]]]:
        """[count][off, on]; every other pair begins with the other one."""
        orders = ((Tracing.OFF, Tracing.ROOTS), (Tracing.ROOTS, Tracing.OFF))
        taken = [{trace: seconds(tokens, start, trace) for trace in orders[n % 2]} for n in range(count)]
        return [[one[Tracing.OFF], one[Tracing.ROOTS]] for one in taken]

    for length, generate in JOBS:
        passes = {"prompt": pairs(text[:length], 0, repeats + 1)[1:]}
        if generate:
            passes["generate"] = []
            for position in range(length, length + generate):
                passes["generate"] += pairs(text[position : position + 1], position, max(2, repeats // 4))
        for phase, taken in passes.items():
            times = np.array(taken) / (length if phase == "prompt" else 1) * 1e6  # [pair][off, on][wall, CPU]
            off, on = np.median(times, axis=0)
            ratios = np.median(times[:, 1] / times[:, 0], axis=0)
            yield {
                **{"phase": phase, "prompt": length, "threads": threads, "pairs": len(taken)},
                **{"off_us": round(float(off[0]), 1), "on_us": round(float(on[0]), 1)},
                **{"cost": round(float(on[0] / off[0]) - 1, 4), "cost_of_pairs": round(float(ratios[0]) - 1, 4)},
                **{
                    "cpu_cost": round(float(on[1] / off[1]) - 1, 4),
                    "cpu_cost_of_pairs": round(float(ratios[1]) - 1, 4),
                },
            }


def report(record: dict[str, Any]) -> None:
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=REPOSITORY)
    line = json.dumps({"benchmark": "inference_cpu", "commit": commit.stdout.strip(), **record})
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / "inference_cpu.jsonl").open("a") as file:
        file.write(line + "\n")
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def run(model: ExactModel, checkpoint: Path, arguments: argparse.Namespace) -> None:
    tokenizer = ChatTokenizer(model.tokenizer, model.chat_template)
    text = tokenizer.encode((REPOSITORY / "docs" / "exact-inference.md").read_text())[
        : max(length for length, _ in JOBS)
    ]
    for threads in arguments.threads or (1, 2):
        with closing(NativeEngine(model, threads=threads, rows_max=512, pages=len(PAGES), isa=arguments.isa)) as engine:
            prompt, generate = text[: JOBS[0][0]], JOBS[0][1]
            checked = check(model, engine, prompt, answer(engine, prompt, generate)["tokens"])
            report({"isa": engine.isa, "threads": threads, "compared_with_reference": checked, "differences": 0})
            if arguments.tracing:
                records = list(off_and_on(engine, text, threads, arguments.repeats))
            elif arguments.rival_python:
                with rival(arguments.rival_python, checkpoint) as ask:
                    records = list(compared(engine, ask, text, threads, arguments.repeats))
            else:
                records = list(compared(engine, None, text, threads, arguments.repeats))
            for record in records:
                report({"isa": engine.isa, "repeats": arguments.repeats, **record})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rival-python")
    parser.add_argument("--tracing", action="store_true")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--isa", choices=instruction_sets(), default=instruction_sets()[0])
    parser.add_argument("--threads", type=int, action="append")
    parser.add_argument("--repeats", type=int, default=7)
    arguments, _ = parser.parse_known_args()
    checkpoint = packaged_model_file()
    if arguments.model:
        return run(ExactModel(arguments.model), checkpoint, arguments)
    with TemporaryDirectory() as folder:
        store = ModelStore(Path(folder))
        root = import_checkpoint(open_checkpoint(checkpoint), store, "bench", Recipe())
        run(ExactModel(store.folder / root.hex()), checkpoint, arguments)


if __name__ == "__main__":
    main()
