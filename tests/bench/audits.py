"""How often an audit catches each kind of cheat, measured against predicted; and what an audit costs on a real model.

    python -m tests.bench.audits detection                                    small models, every class of tests/unit/zk
    python -m tests.bench.audits cost --models-dir .warpgrid/models --model smollm2

Detection: of each class many claims, each audited many times with fresh randomness and a fresh secret. The prediction
for a claim is 1 - (1 - f)^n, f being the share of its units that are wrong, which auditing every unit tells. Cost: CPU
time of one core a unit, openings through their wire form and back, bytes on the wire.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from core.hashing import keccak256
from protos.rpc import encode
from tests.unit.zk.cheats import CHEATS
from tests.unit.zk.scene import Claim, Scene
from worker.inference.exact.model import ExactModel, ModelStore
from worker.inference.exact.sampling import Sampling
from worker.inference.proof_arithmetic import ProofArithmetic
from worker.inference.proof_engine import ProofEngine
from zk.audit import (
    AuditKey,
    AuditVerdict,
    CommittedRows,
    Unit,
    audit,
    catch_probability,
    draw_units,
    open_unit,
    unit_count,
)
from zk.openings import opened_of, openings_of
from zk.trace import Statement

__all__ = ["audited", "detection", "main"]

RESULTS = Path(__file__).parent / "results" / "audits.jsonl"
CLAIMS, AUDITS, DRAWS = 12, 40, 2
ANSWER_TOKENS = 6
PROMPT_TOKENS, LONG_ANSWER_TOKENS, COST_UNITS = 300, 212, 48


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("mode", choices=("detection", "cost"))
    parser.add_argument("--models-dir", type=Path, default=Path(".warpgrid/models"))
    parser.add_argument("--model", default="smollm2")
    arguments = parser.parse_args()
    if arguments.mode == "detection":
        results = detection()
    else:
        results = cost(ExactModel(ModelStore(arguments.models_dir).find(arguments.model)))
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("a") as file:
        for result in results:
            line = json.dumps({"mode": arguments.mode, **result, "commit": commit, "device": "cpu"})
            file.write(line + "\n")
            sys.stdout.write(line + "\n")
            sys.stdout.flush()


def audited(scene: Scene, order: Statement, claim: Claim, units: list[Unit], secret: bytes) -> AuditVerdict:
    """The verdict on these units of a claim, whose worker answers for the ordered model, whatever it ran."""
    received = replace(order, answer=claim.statement.answer)
    openings = [open_unit(scene.arithmetic, claim.trace, claim.rows, unit) for unit in units]
    key = AuditKey(scene.arithmetic, secret)
    return audit(scene.arithmetic, key, received, claim.trace.root, claim.trace.position_roots, units, openings)


def all_units(layers: int, statement: Statement) -> list[Unit]:
    units = [Unit(position, layer) for position in range(len(statement.tokens) - 1) for layer in range(layers)]
    return units + [Unit(len(statement.prompt) - 1 + i, layers) for i in range(len(statement.answer))]


def detection(claims: int = CLAIMS, audits: int = AUDITS, draws: int = DRAWS) -> Iterator[dict[str, Any]]:
    """Measured and predicted share of audits that refuse, for each class. Asserts that they agree."""
    with closing(Scene(31)) as scene:
        for name, cheat in CHEATS.items():
            predicted, variance, caught = 0.0, 0.0, 0
            for number in range(claims):
                generator = np.random.default_rng([23, number, *name.encode()])
                order = scene.order(scene.prompt(8), Sampling(55_000, 60, 65_000, number))
                claim = cheat(scene, order, ANSWER_TOKENS, generator)
                chance = predicted_chance(scene, order, claim, draws)
                predicted += audits * chance
                variance += audits * chance * (1 - chance)
                for audit_number in range(audits):
                    caught += is_caught(scene, order, claim, draws, f"{name} {number} {audit_number}")
            total = claims * audits
            assert abs(caught - predicted) <= 4 * variance**0.5 + 1e-6, (name, caught, predicted)
            shares = {"measured": round(caught / total, 4), "predicted": round(predicted / total, 4)}
            yield {"class": name, "audits": total, "draws": draws, **shares}


def predicted_chance(scene: Scene, order: Statement, claim: Claim, draws: int) -> float:
    layers, received = scene.model.header.layers, replace(order, answer=claim.statement.answer)
    units = all_units(layers, received)
    assert len(units) == unit_count(layers, received)
    whole = audited(scene, order, claim, units, keccak256(b"every unit"))
    assert not whole.accepted, "a cheat has at least one wrong unit"
    wrong = len(whole.findings) or len(units)  # another order's commitment is refused before any unit is looked at
    return catch_probability(wrong, len(units), draws)


def is_caught(scene: Scene, order: Statement, claim: Claim, draws: int, name: str) -> bool:
    received = replace(order, answer=claim.statement.answer)
    beacon = keccak256(b"beacon " + name.encode())
    drawn = draw_units(beacon, claim.trace.root, scene.model.header.layers, received, draws)
    return not audited(scene, order, claim, drawn, keccak256(b"secret " + name.encode())).accepted


def cost(model: ExactModel) -> Iterator[dict[str, Any]]:
    """One auditor, one core, an answer of 512 positions: after the keys are made, per unit and per token challenged."""
    with closing(ProofEngine(model, model.root, tokens_max=PROMPT_TOKENS + LONG_ANSWER_TOKENS)) as engine:
        prompt = tuple(np.random.default_rng(1).integers(20, model.header.vocabulary, PROMPT_TOKENS).tolist())
        statement, trace = engine.answer(prompt, Sampling(), LONG_ANSWER_TOKENS, bytes(32))
        parts = list(engine.prefill(statement))
    boundaries, kv_rows = ([getattr(part, name) for part in parts] for name in ("boundaries", "kv_rows"))
    rows = CommittedRows(np.concatenate(boundaries), np.concatenate(kv_rows))
    arithmetic = ProofArithmetic(model)
    key = AuditKey(arithmetic, keccak256(b"secret"))
    layers = model.header.layers
    drawn = draw_units(keccak256(b"beacon"), trace.root, layers, statement, COST_UNITS)
    heads = [Unit(PROMPT_TOKENS + 16 * i, layers) for i in range(8)]
    for kind, units in (("layer", [one for one in drawn if one.layer < layers]), ("head", heads)):
        openings = [open_unit(arithmetic, trace, rows, unit) for unit in units]
        wire = opened_of(bytes(32), trace.position_roots, openings)
        sizes = [len(encode(one)) for one in wire.openings]

        def check(wire: Any = wire, units: list[Unit] = units) -> float:
            started = time.process_time()
            roots, read = openings_of(model.header, units, wire)
            verdict = audit(arithmetic, key, statement, trace.root, roots, units, read)
            assert verdict.accepted, verdict
            return 1000 * (time.process_time() - started) / len(units)

        check()  # the secret vectors are made here, once for a model
        best_ms = min(check() for _ in range(5))
        yield {"unit": kind, "units": len(units), "ms": round(best_ms, 2), "wire_bytes": sum(sizes) // len(sizes)}
    stored = {"position_roots": trace.position_roots.nbytes, "leaves": trace.leaves.nbytes, "rows": rows_bytes(rows)}
    yield {"positions": len(statement.tokens), "stored_bytes": stored}


def rows_bytes(rows: CommittedRows) -> int:
    return rows.boundaries.nbytes + rows.kv_rows.nbytes


if __name__ == "__main__":
    main()
