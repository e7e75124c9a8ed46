"""The exact engine's speed on a GPU, each figure behind a check that its bytes are the CPU engine's.

    python -m tests.bench.inference exactness      GPU against CPU: random models, ragged batches, traces
    python -m tests.bench.inference engine         speed at the shapes of Llama-3-8B and SmolLM2, random weights
    python -m tests.bench.inference tracing        the same shapes, tracing off and on in turn
    python -m tests.bench.inference transformers   the same shapes in bf16, static cache, CUDA graphs, sdpa

`engine:smollm2` and the like take one shape alone.

`device_ms` is a median between CUDA events, `step_ms` of the whole of `GpuEngine.forward`, host and copies included;
`kernels_us` has events between all kernels, which adds a few microseconds to each.
"""

import json
import math
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.gpu import Device
from tests.unit.worker.inference.random_models import BASE_HEADER, RandomModel, random_model
from worker.inference.exact.gpu import GpuEngine
from worker.inference.exact.gpu_pass import shape_of
from worker.inference.exact.native import PAGE_POSITIONS, NativeEngine, Rows, sequence_rows
from worker.inference.exact.specification import Header, TensorSpec, tensor_specs
from worker.inference.exact.tracing import Tracing

__all__ = ["main"]

RESULTS = Path(__file__).parent / "results" / "inference.jsonl"
CACHE_DIR = Path("build/kernels")
CONTEXT = 512
TRACING_STEPS = 24
TRACING_ROUNDS = 5
BATCHES = (1, 16, 64, 256)
PREFILLS = ((1, 512), (4, 512), (8, 512), (1, 4096))
MEMORY_BYTES_PER_S = 4.8e12  # the vendor's figure for an H200

SHAPES: dict[str, dict[str, int]] = {
    "plain": {},
    "bias": {"qkv_bias": 1},
    "head_norm": {"qk_norm": 1},
    "hadamard": {"qk_hadamard": 1},
    "two_limbs": {"qkv_bits": 16, "gate_up_bits": 16, "head_bits": 16, "o_bits": 16},
    "one_limb": {"down_bits": 8},
    "ragged": {"heads": 6, "model_width": 96, "vocabulary": 131},
    "wide_heads": {"head_width": 64, "qk_norm": 1, "qkv_bias": 1},
    "widest_heads": {"head_width": 256, "heads": 2, "key_value_heads": 1, "qk_hadamard": 1},
    "loud_64": {"head_width": 64, "heads": 6, "key_value_heads": 2, "loud_bits": 6},
    "loud_128": {"head_width": 128, "heads": 4, "key_value_heads": 2, "loud_bits": 6},
    "odd_heads": {"head_width": 80, "heads": 14, "key_value_heads": 2, "model_width": 160},
    "smollm2": {
        **{"model_width": 576, "heads": 9, "key_value_heads": 3, "head_width": 64, "feed_forward_width": 1536},
        **{"vocabulary": 49_152, "layers": 4, "context_max": 2048},
    },
    "llama_8b_layers": {
        **{"model_width": 4096, "heads": 32, "key_value_heads": 8, "head_width": 128, "feed_forward_width": 14_336},
        **{"vocabulary": 1000, "layers": 2, "context_max": 2048},
    },
}

LLAMA_8B = replace(
    BASE_HEADER,
    layers=32,
    model_width=4096,
    heads=32,
    key_value_heads=8,
    head_width=128,
    feed_forward_width=14_336,
    vocabulary=128_256,
    context_max=8192,
)

SMOLLM2 = replace(
    BASE_HEADER,
    layers=30,
    model_width=576,
    heads=9,
    key_value_heads=3,
    head_width=64,
    feed_forward_width=1536,
    vocabulary=49_152,
    context_max=2048,
    qk_hadamard=1,
)

MODELS = {"llama_8b": LLAMA_8B, "smollm2": SMOLLM2}


def main() -> None:
    modes: dict[str, Callable[[Header], Iterator[dict[str, Any]]]] = {
        "engine": engine,
        "tracing": tracing,
        "transformers": transformers,
    }
    for argument in sys.argv[1:] or ["exactness", "engine"]:
        mode, _, only = argument.partition(":")
        if mode == "exactness":
            for result in exactness():
                record({"mode": mode, **result})
            continue
        for name in [only] if only else MODELS:
            for result in modes[mode](MODELS[name]):
                record({"mode": mode, "shape": name, **result})


def record(result: dict[str, Any]) -> None:
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    where = {} if "device" in result else {"device": device().name}
    line = json.dumps({"commit": commit.stdout.strip(), **where, **result})
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("a") as file:
        file.write(line + "\n")
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def device() -> Device:
    return Device(0, CACHE_DIR)


# Exactness


def ragged_rows(header: Header, generator: np.random.Generator, lengths: list[int], starts: list[int]) -> Rows:
    """The next rows of several sequences, each with its own pages; logits for the last row of each."""
    width = max(-(-(start + n) // PAGE_POSITIONS) for start, n in zip(starts, lengths, strict=True))
    pages = np.arange(len(lengths) * 4, dtype=np.int32).reshape(len(lengths), 4)[::-1, :width]
    return Rows(
        tokens=generator.integers(0, header.vocabulary, sum(lengths)).astype(np.int32),
        positions=np.concatenate([np.arange(s, s + n) for s, n in zip(starts, lengths, strict=True)]).astype(np.int32),
        sequences=np.repeat(np.arange(len(lengths)), lengths).astype(np.int32),
        pages=pages,
        logit_rows=(np.cumsum(lengths) - 1).astype(np.int32),
    )


def compare(gpu: GpuEngine, cpu: NativeEngine, rows: Rows, trace: Tracing) -> int:
    """Numbers compared. Raises AssertionError at a difference."""
    ours, theirs = gpu.forward(rows, trace=trace), cpu.forward(rows, trace=trace)
    pairs: list[tuple[str, Any, Any]] = [
        ("logits", ours.logits.get(), theirs.logits),
        ("greedy", ours.greedy.astype(np.int64), theirs.logits.argmax(axis=1)),
    ]
    if ours.roots is not None and theirs.roots is not None:
        pairs += [("roots", ours.roots.wait(), theirs.roots.wait())]
    if trace == Tracing.ROWS:
        pairs += [("boundaries", ours.boundaries, theirs.boundaries), ("kv_rows", ours.kv_rows, theirs.kv_rows)]
    for name, a, b in pairs:
        where = np.argwhere(np.asarray(a) != np.asarray(b))
        assert len(where) == 0, f"{name}: {len(where)} of {np.asarray(b).size} differ, first at {where[0]}"
    return sum(np.asarray(b).size for _, _, b in pairs)


def exactness() -> Iterator[dict[str, Any]]:
    for name, shape in SHAPES.items():
        model = random_model(11, **shape)
        generator = np.random.default_rng(12)
        compared = 0
        with closing(NativeEngine(model, rows_max=512, pages=256)) as cpu:
            gpu = GpuEngine(model, device(), rows_max=512, pages=256)
            for batch in (1, 2, 5, 16, 33, 64):
                prompts = generator.integers(1, 140 if batch < 5 else 9, batch).tolist()
                rows = ragged_rows(model.header, generator, prompts, [0] * batch)
                compared += compare(gpu, cpu, rows, Tracing.ROWS)
                lengths = list(prompts)
                for _ in range(3):
                    rows = ragged_rows(model.header, generator, [1] * batch, lengths)
                    compared += compare(gpu, cpu, rows, Tracing.ROOTS)
                    lengths = [one + 1 for one in lengths]
            gpu.close()
        yield {"shape": name, "compared": compared, "differences": 0}


# Speed


class DeviceModel(RandomModel):
    """A model of the given shape whose random weights never leave the device. Scales keep every value in range."""

    def __init__(self, header: Header) -> None:
        self.header = header
        self._specs = {spec.name: spec for spec in tensor_specs(header)}
        self._cupy = device().cupy
        self._cupy.random.seed(1)

    def tensor(self, name: str) -> Any:
        spec = self._specs[name]
        if name.endswith(".weight"):
            return self._weight(spec)
        if name.endswith(".mantissa"):
            return np.full(spec.shape, 40_000, spec.dtype)
        if name.endswith(".exponent"):
            exponent = {"embedding": -26, "down": -43, "o": -36}.get(name.split(".")[-2], -35)
            return np.full(spec.shape, exponent, spec.dtype)
        angles = np.arange(spec.rows)[:, None] / 500_000 ** (np.arange(spec.columns) / spec.columns)
        return np.rint((np.cos if name.endswith("cos") else np.sin)(angles) * 2**14).astype(spec.dtype)

    def _weight(self, spec: TensorSpec) -> Any:
        words = self._cupy.random.randint(0, 2**31, -(-spec.bytes // 4), dtype=np.int32)
        words ^= words << 1  # the top bit too
        return self._cupy.maximum(words.view(np.int8)[: spec.bytes], -127).reshape(spec.shape)


def median_ms(cupy: Any, stream: Any, call: Callable[[], Any], repetitions: int) -> float:
    """Median time between events around `call`, after two calls to warm up."""
    times = []
    with stream:
        for index in range(repetitions + 2):
            start, end = cupy.cuda.Event(), cupy.cuda.Event()
            start.record(stream)
            call()
            end.record(stream)
            end.synchronize()
            if index >= 2:
                times.append(cupy.cuda.get_elapsed_time(start, end))
    return float(np.median(times))


def engine(header: Header) -> Iterator[dict[str, Any]]:
    """Prefill and decode, tracing off and on, of a random model."""
    cupy = device().cupy
    pages_each = -(-(CONTEXT + 64) // PAGE_POSITIONS)
    gpu = GpuEngine(
        DeviceModel(header), device(), rows_max=max(map(math.prod, PREFILLS)), pages=max(BATCHES) * pages_each
    )
    weight_bytes = sum(spec.bytes for spec in tensor_specs(header) if spec.name.endswith(".weight")) - (
        header.vocabulary * header.model_width
    )
    position_bytes = header.layers * header.key_value_heads * (2 * header.head_width + 12)
    prompt = np.random.default_rng(3).integers(0, header.vocabulary, CONTEXT).tolist()
    gpu.forward(sequence_rows(prompt, 0, range(pages_each)))
    cache = gpu._buffers["cache"].reshape(max(BATCHES), -1)
    cache[1:] = cache[0]
    expected: NDArray[np.int32] | None = None
    for batch in BATCHES:
        rows = decode_rows(prompt, batch, pages_each)
        logits = gpu.forward(rows).logits.get()
        expected = logits[0] if expected is None else expected
        assert (logits == expected).all(), f"batch {batch} differs from batch 1"
        shape, _ = shape_of(gpu.header, rows, traced=False)
        device_ms = median_ms(cupy, gpu._stream, partial(gpu._run, shape, gpu._hasher.slots[0]), 20)
        step_ms = median_step_ms(partial(gpu.forward, rows), 12)
        traced_ms = median_step_ms(partial(gpu.forward, rows, trace=Tracing.ROOTS), 12)
        floor_ms = (weight_bytes + batch * CONTEXT * position_bytes) / MEMORY_BYTES_PER_S * 1000
        yield {
            **{"phase": "decode", "batch": batch, "context": CONTEXT, "device_ms": round(device_ms, 3)},
            **{"step_ms": round(step_ms, 3), "traced_step_ms": round(traced_ms, 3), "floor_ms": round(floor_ms, 3)},
            **{"tokens_per_s": round(batch / step_ms * 1000), "of_floor": round(floor_ms / device_ms, 3)},
            "kernels_us": kernel_times(gpu, rows),
        }
    yield from prefill(gpu, weight_bytes)
    gpu.close()


def tracing(header: Header) -> Iterator[dict[str, Any]]:
    """What hashing every position costs: rounds of steps with tracing off and on, in turn, each taking up the roots of
    the step before as a server does."""
    pages_each = -(-(CONTEXT + 64) // PAGE_POSITIONS)
    gpu = GpuEngine(
        DeviceModel(header), device(), rows_max=max(map(math.prod, PREFILLS)), pages=max(BATCHES) * pages_each
    )
    prompt = np.random.default_rng(3).integers(0, header.vocabulary, CONTEXT).tolist()
    for batch in BATCHES:
        rows = decode_rows(prompt, batch, pages_each)
        yield {"phase": "decode", "batch": batch, **off_and_on(gpu, rows, TRACING_STEPS)}
    for sequences, length in PREFILLS:
        if length <= header.context_max:
            rows = prompt_rows(header, sequences, length)
            one = off_and_on(gpu, rows, TRACING_STEPS // 8)
            yield {"phase": "prefill", "sequences": sequences, "length": length, **one}
    gpu.close()


def off_and_on(gpu: GpuEngine, rows: Rows, steps: int) -> dict[str, float]:
    """Medians, over rounds, of milliseconds a step."""

    def round_ms(trace: Tracing) -> float:
        before = gpu.forward(rows, trace=trace)
        started = time.perf_counter()
        for _ in range(steps):
            now = gpu.forward(rows, trace=trace)
            if before.roots is not None:
                before.roots.wait()
            before = now
        return (time.perf_counter() - started) / steps * 1000

    for trace in (Tracing.OFF, Tracing.ROOTS, Tracing.ROOTS):  # graphs of both slots
        gpu.forward(rows, trace=trace)
    times = np.array([[round_ms(Tracing.OFF), round_ms(Tracing.ROOTS)] for _ in range(TRACING_ROUNDS)])
    off, on = (float(one) for one in np.median(times, axis=0))
    return {"off_ms": round(off, 3), "on_ms": round(on, 3), "cost": round(on / off - 1, 4)}


def median_step_ms(call: Callable[[], Any], repetitions: int) -> float:
    """Median wall time of `call`, after two calls to warm up."""
    times = []
    for _ in range(repetitions + 2):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return float(np.median(times[2:])) * 1000


def decode_rows(prompt: list[int], batch: int, pages_each: int) -> Rows:
    """The same next token for `batch` equal sequences, each in its own pages."""
    return Rows(
        tokens=np.full(batch, prompt[0], np.int32),
        positions=np.full(batch, len(prompt), np.int32),
        sequences=np.arange(batch, dtype=np.int32),
        pages=np.arange(batch * pages_each, dtype=np.int32).reshape(batch, -1),
        logit_rows=np.arange(batch, dtype=np.int32),
    )


def prompt_rows(header: Header, sequences: int, length: int) -> Rows:
    """The same prompt for so many sequences, each in its own pages."""
    pages_each = -(-length // PAGE_POSITIONS)
    prompt = np.random.default_rng(4).integers(0, header.vocabulary, length).astype(np.int32)
    return Rows(
        tokens=np.tile(prompt, sequences),
        positions=np.tile(np.arange(length, dtype=np.int32), sequences),
        sequences=np.repeat(np.arange(sequences, dtype=np.int32), length),
        pages=np.arange(sequences * pages_each, dtype=np.int32).reshape(sequences, -1),
        logit_rows=np.arange(1, sequences + 1, dtype=np.int32) * length - 1,
    )


def prefill(gpu: GpuEngine, weight_bytes: int) -> Iterator[dict[str, Any]]:
    """`operations` counts a multiplication and an addition for each weight and token; two limbs count twice."""
    header = gpu.header
    down = header.layers * header.feed_forward_width * header.model_width * (header.down_bits // 8 - 1)
    head = header.vocabulary * header.model_width
    for sequences, length in PREFILLS:
        if length > header.context_max:
            continue
        rows = prompt_rows(header, sequences, length)
        logits = gpu.forward(rows).logits.get()
        assert (logits == logits[0]).all(), "equal prompts, different logits"
        step_ms = median_step_ms(partial(gpu.forward, rows), 4)
        tokens = sequences * length
        operations = 2 * tokens * (weight_bytes - head + down)
        yield {
            **{"phase": "prefill", "sequences": sequences, "length": length, "step_ms": round(step_ms, 2)},
            **{
                "tokens_per_s": round(tokens / step_ms * 1000),
                "tera_operations_per_s": round(operations / step_ms / 1e9),
            },
            "kernels_us": kernel_times(gpu, rows),
        }


def kernel_times(gpu: GpuEngine, rows: Rows) -> dict[str, float]:
    """Microseconds of each kind of kernel in one batch, launched one by one with events between."""
    cupy = gpu._cupy
    shape, _ = shape_of(gpu.header, rows, traced=False)
    totals: dict[str, float] = {}
    with gpu._stream:
        launches = gpu._launches(shape, gpu._hasher.slots[0])
        events = [cupy.cuda.Event() for _ in range(len(launches) + 1)]
        events[0].record(gpu._stream)
        prepared = [gpu._launcher.prepare(*launch) for launch in launches]
        for one, event in zip(prepared, events[1:], strict=True):
            gpu._launcher.launch(one)
            event.record(gpu._stream)
        gpu._stream.synchronize()
    names = {id(kernel): name for name, kernel in gpu._kernels.items()}
    for index, launch in enumerate(launches):
        elapsed = cupy.cuda.get_elapsed_time(events[index], events[index + 1]) * 1000
        name = names[id(launch.kernel)]
        totals[name] = round(totals.get(name, 0) + elapsed, 1)
    return totals


def transformers(h: Header) -> Iterator[dict[str, Any]]:
    import torch  # noqa: PLC0415 - only where the comparison runs
    from transformers import LlamaConfig, LlamaForCausalLM, StaticCache  # noqa: PLC0415

    config = LlamaConfig(
        vocab_size=h.vocabulary,
        hidden_size=h.model_width,
        intermediate_size=h.feed_forward_width,
        num_hidden_layers=h.layers,
        num_attention_heads=h.heads,
        num_key_value_heads=h.key_value_heads,
        max_position_embeddings=h.context_max,
        attn_implementation="sdpa",
    )
    torch.set_grad_enabled(False)
    torch.set_default_device("cuda")
    torch.set_default_dtype(torch.bfloat16)
    model = LlamaForCausalLM(config).eval()
    for layer in model.model.layers:
        layer.compile()

    def timed(call: Callable[[], Any], repetitions: int) -> float:
        times = []
        for index in range(repetitions + 2):
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            call()
            end.record()
            end.synchronize()
            if index >= 2:
                times.append(start.elapsed_time(end))
        return float(np.median(times))

    for sequences, length in PREFILLS:
        if length > h.context_max:
            continue
        tokens = torch.randint(0, h.vocabulary, (sequences, length))
        ms = timed(partial(model, tokens, use_cache=True, logits_to_keep=1), 5)
        yield {
            **{"phase": "prefill", "sequences": sequences, "length": length},
            **{"step_ms": round(ms, 2), "tokens_per_s": round(sequences * length / ms * 1000)},
        }
    for batch in BATCHES:
        cache = StaticCache(config=config, max_cache_len=CONTEXT + 64)
        token = torch.randint(0, h.vocabulary, (batch, 1))
        position = torch.tensor([CONTEXT])

        def step(token: Any = token, cache: Any = cache, position: Any = position) -> Any:
            return model(token, past_key_values=cache, cache_position=position, position_ids=position[None]).logits

        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            for _ in range(3):
                step()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            step()
        ms = timed(graph.replay, 20)
        yield {
            **{"phase": "decode", "batch": batch, "context": CONTEXT},
            **{"graph_ms": round(ms, 3), "tokens_per_s": round(batch / ms * 1000)},
        }
        del graph, cache


if __name__ == "__main__":
    main()
