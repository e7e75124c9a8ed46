"""Makes the vectors of the exact engine: `python -m tests.conformance.exact_vectors`, from seeds, with `exact_scalar`.

Each operation's file is a list of {"in": ..., "out": ...}. Cases mix ordinary values with the extremes of int32.
Besides them two tiny complete models: `plain` (the common shape) and `every` (bias, head norms, Hadamard, 16-bit
inputs).
"""

import json
import shutil
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

from tests.conformance import exact_scalar as scalar
from worker.inference.exact.checkpoint import inverse_frequencies, linear_divisors
from worker.inference.exact.convert import attention_constant
from worker.inference.exact.model import ExactModel, ModelWriter
from worker.inference.exact.reference import Cache, forward
from worker.inference.exact.rotary_tables import rotary_tables
from worker.inference.exact.specification import Header, tensor_specs

VECTORS = Path(__file__).parent / "vectors" / "exact"
EXTREME = 2**31 - 1

Case = dict[str, Any]


def ints(generator: np.random.Generator, bits: int, count: int) -> list[int]:
    """Values whose magnitudes spread over all bit lengths up to `bits`, heavy at both ends."""
    magnitude = np.exp2(generator.uniform(0, bits, count))
    return [int(v) for v in np.clip(magnitude * generator.choice([-1, 1], count), -EXTREME, EXTREME)]


def normal(generator: np.random.Generator, deviation: float, count: int) -> list[int]:
    return [int(v) for v in np.rint(generator.normal(0, deviation, count))]


def rows(generator: np.random.Generator, width: int) -> list[list[int]]:
    """Input rows of every kind: typical, with an outlier, all extreme, one extreme, tiny, zero."""
    typical = normal(generator, 5000, width)
    return [
        typical,
        [*typical[:-1], 3_000_000],
        normal(generator, 200_000_000, width),
        [EXTREME if i % 2 else -EXTREME for i in range(width)],
        [-EXTREME, *[0] * (width - 1)],
        [1, *[0] * (width - 1)],
        normal(generator, 2, width),
        [0] * width,
        ints(generator, 31, width),
    ]


def int8(generator: np.random.Generator, *shape: int) -> Any:
    return generator.integers(-127, 128, shape).tolist()


def quantise_cases(generator: np.random.Generator) -> list[Case]:
    cases = []
    for bits in (8, 16):
        for z in rows(generator, 32):
            q, a = scalar.quantise(z, bits)
            cases.append({"in": {"z": z, "bits": bits}, "out": {"q": q, "a": a}})
    return cases


def norm_scale_cases(generator: np.random.Generator) -> list[Case]:
    cases = []
    for fraction in (8, 12, 16):
        for epsilon in (0, 281_474_977, 2_814_749_767, 2**32):
            for x in rows(generator, 32):
                m, e = scalar.norm_scale(x, fraction, epsilon)
                given = {"x": x, "residual_fraction": fraction, "epsilon_q48": epsilon}
                cases.append({"in": given, "out": {"mantissa": m, "exponent": e}})
    return cases


def linear_cases(generator: np.random.Generator) -> list[Case]:
    cases = []
    for bits, width in ((8, 32), (16, 32), (8, 96)):
        weight = [*int8(generator, 5, width), [127] * width, [-127] * width, [0] * width]
        mantissas = [int(m) for m in generator.integers(2**15, 2**16, len(weight))]
        for z in rows(generator, width):
            q, a = scalar.quantise(z, bits)
            scale = scalar.plain_scale(a, 16)
            exponents = [int(e) for e in generator.integers(-45, -23, len(weight))]
            out = scalar.linear(weight, mantissas, exponents, q, scale, 16)
            given = {"weight": weight, "mantissa": mantissas, "exponent": exponents, "q": q, "a": a, "bits": bits}
            cases.append({"in": {**given, "input_fraction": 16, "output_fraction": 16}, "out": {"v": out}})
    return cases


def head_cases(generator: np.random.Generator) -> dict[str, list[Case]]:
    norms, rotations, hadamards = [], [], []
    for z in rows(generator, 16):
        weight = normal(generator, 100_000, 16)
        out = scalar.head_norm(z, weight, 281_474_977)
        norms.append({"in": {"z": z, "weight": weight, "epsilon_q48": 281_474_977}, "out": {"z": out}})
        angles = generator.uniform(0, 6.3, 8)
        cos, sin = ([int(v) for v in np.rint(f(angles) * 16384)] for f in (np.cos, np.sin))
        rotations.append({"in": {"z": z, "cos": cos, "sin": sin}, "out": {"z": scalar.rotary(z, cos, sin)}})
        hadamards.append({"in": {"z": z}, "out": {"z": scalar.head_hadamard(z)}})
    return {"head_norm": norms, "rotary": rotations, "head_hadamard": hadamards}


def attention_cases(generator: np.random.Generator) -> list[Case]:
    cases = []
    mantissa, exponent = attention_constant(16, hadamard=False)
    for count in (1, 2, 7, 40):
        for z in rows(generator, 16):
            k, v = int8(generator, count, 16), int8(generator, count, 16)
            ka, va = ([abs(x) or 1 for x in ints(generator, 31 if count == 7 else 16, count)] for _ in range(2))
            out = scalar.attention((mantissa, exponent), z, k, ka, v, va)
            given = {"z": z, "k": k, "ka": ka, "v": v, "va": va}
            constant = {"attention_mantissa": mantissa, "attention_exponent": exponent}
            cases.append({"in": {**given, **constant}, "out": {"z": out}})
    return cases


def gated_unit_cases(generator: np.random.Generator) -> list[Case]:
    cases = []
    for fraction in (8, 12, 16):
        edges = [0, 1, -1, 65535, 65536, -65536, -65537, EXTREME, -EXTREME, 31, 32, -32]
        gate = [*edges, *ints(generator, 31, 30), *normal(generator, 8000, 30)]
        up = [*([EXTREME, -EXTREME] * 6), *ints(generator, 31, 30), *normal(generator, 8000, 30)]
        out = [scalar.gated_unit(g, u, fraction) for g, u in zip(gate, up, strict=True)]
        cases.append({"in": {"gate": gate, "up": up, "hidden_fraction": fraction}, "out": {"z": out}})
    return cases


def sampling_cases(generator: np.random.Generator) -> list[Case]:
    cases = []
    for index in range(60):
        logits = normal(generator, 250_000, 50)
        if index % 5 == 0:
            logits = [value // 200_000 * 200_000 for value in logits]  # ties
        given = {
            "temperature_q16": int(generator.choice([0, 656, 32768, 65536, 131072, 6_553_600])),
            "top_k": int(generator.choice([0, 0, 1, 5, 50])),
            "top_p_q16": int(generator.choice([65536, 65536, 1, 32768, 62259])),
            "seed": int(generator.integers(0, 2**64, dtype=np.uint64)),
            "choice": int(generator.integers(0, 3)),
            "position": int(generator.integers(0, 131072)),
        }
        cases.append({"in": {"logits": logits, **given}, "out": {"token": scalar.choose(logits, **given)}})
    return cases


def tiny_header(*, every: bool) -> Header:
    mantissa, exponent = attention_constant(16, hadamard=every)
    flag, bits = int(every), 16 if every else 8
    return Header(
        layers=2,
        model_width=32,
        heads=4,
        key_value_heads=2,
        head_width=16,
        feed_forward_width=96,
        vocabulary=64,
        context_max=64,
        residual_fraction=12 if every else 16,
        hidden_fraction=14 if every else 16,
        epsilon_q48=2_814_749_767,
        attention_mantissa=mantissa,
        attention_exponent=exponent,
        qkv_bias=flag,
        qk_norm=flag,
        qk_hadamard=flag,
        qkv_bits=bits,
        o_bits=bits,
        gate_up_bits=bits,
        down_bits=16,
        head_bits=bits,
        end_tokens=(0, 7),
    )


def write_tiny_model(directory: Path, header: Header, generator: np.random.Generator) -> None:
    """Random weights, with scales that keep the activations near those of a trained model."""
    writer = ModelWriter(directory, header)
    frequencies = inverse_frequencies(Decimal(10000), linear_divisors(header.head_width // 2, Decimal(1)))
    tables = dict(zip(("rope.cos", "rope.sin"), rotary_tables(frequencies, header.context_max), strict=True))
    for spec in tensor_specs(header):
        role, kind = spec.name.split(".")[-2:] if "." in spec.name else ("", spec.name)
        if spec.name in tables:
            values = tables[spec.name]
        elif kind == "weight":
            values = generator.integers(-127, 128, spec.shape).astype(np.int8)
        elif kind == "mantissa":
            values = generator.integers(2**15, 2**16, spec.shape).astype(np.uint16)
        elif kind == "exponent":
            bits = 8 if role == "embedding" else header.bits(role)  # type: ignore[arg-type]
            base = -22 if role == "embedding" else -31 if bits == 8 else -39
            values = np.full(spec.shape, base, dtype=np.int8)
        elif kind == "bias":
            values = np.rint(generator.normal(0, 4096, spec.shape)).astype(np.int32)
        else:  # head norms
            values = generator.integers(30_000, 90_000, spec.shape).astype(np.int32)
        writer.tensor(spec.name, values)
    writer.finish(
        b'{"version":"1.0","model":{"type":"WordLevel","vocab":{"a":0},"unk_token":"a"}}', "", {"name": "tiny"}
    )


def model_case(directory: Path, generator: np.random.Generator) -> Case:
    model = ExactModel(directory)
    tokens = [int(t) for t in generator.integers(0, model.header.vocabulary, 12)]
    cache = Cache(model.header)
    result = forward(model, cache, tokens)
    positions, layers = range(len(tokens)), range(model.header.layers)
    return {
        "root": model.root.hex(),
        "tokens": tokens,
        "residuals": result.residuals.tolist(),
        "key_values": [[cache.row_bytes(layer, position).hex() for position in positions] for layer in layers],
        "logits": result.logits.tolist(),
    }


def main() -> None:
    generator = np.random.Generator(np.random.PCG64(20261122))
    VECTORS.mkdir(parents=True, exist_ok=True)
    operations = {
        "quantise": quantise_cases(generator),
        "norm_scale": norm_scale_cases(generator),
        "linear": linear_cases(generator),
        **head_cases(generator),
        "attention": attention_cases(generator),
        "gated_unit": gated_unit_cases(generator),
        "sampling": sampling_cases(generator),
    }
    for name, cases in operations.items():
        (VECTORS / f"{name}.json").write_text(json.dumps(cases, separators=(",", ":")) + "\n")
    for name in ("plain", "every"):
        directory = VECTORS / f"model_{name}"
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
        write_tiny_model(directory, tiny_header(every=name == "every"), generator)
        case = model_case(directory, generator)
        (VECTORS / f"model_{name}.json").write_text(json.dumps(case, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
