"""Thirteen ways to cheat at exact inference. Each makes a claim that is wrong in a way of its own."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.hashing import keccak256
from tests.unit.worker.inference.random_models import RandomModel, random_model
from tests.unit.zk.scene import Claim, Scene, claim_rows, open_engine, run_rows
from worker.inference.exact.sampling import Sampling
from zk.audit import CommittedRows
from zk.trace import Statement, Trace

__all__ = ["CHEATS", "Cheat"]

Generator = np.random.Generator
Cheat = Callable[[Scene, Statement, int, Generator], Claim]


def altered(model: RandomModel, changes: dict[str, NDArray[Any]]) -> RandomModel:
    tensors = {name: model.tensor(name) for name in model_names(model)}
    return RandomModel(model.header, {**tensors, **changes})


def model_names(model: RandomModel) -> list[str]:
    return list(model._tensors)


def weight_names(model: RandomModel) -> list[str]:
    return [name for name in model_names(model) if name.endswith(".weight") and name.startswith("layers.")]


def smaller_model(scene: Scene, order: Statement, tokens: int, generator: Generator) -> Claim:
    """Half the layers, distilled or not; the rows of the missing ones are made up from the last."""
    layers = scene.model.header.layers
    small = random_model(int(generator.integers(1 << 30)), layers=1)
    with closing(open_engine(small, scene.model_root)) as engine:
        answer = engine.generate(order.prompt, Sampling(*order.sampling), tokens)
        statement = replace(order, answer=answer)
        rows = run_rows(engine, statement)
    boundaries = rows.boundaries[:, np.minimum(np.arange(layers + 1), 1)]
    return claim_rows(scene.engine, statement, CommittedRows(boundaries, np.repeat(rows.kv_rows, layers, axis=1)))


def four_bits(scene: Scene, order: Statement, tokens: int, generator: Generator) -> Claim:
    def rounded(weight: NDArray[np.int8]) -> NDArray[np.int8]:
        return (np.clip(np.rint(weight / 16), -7, 7) * 16).astype(np.int8)

    model = scene.model
    return scene.with_model(order, tokens, altered(model, {n: rounded(model.tensor(n)) for n in weight_names(model)}))


def one_bit(scene: Scene, order: Statement, tokens: int, generator: Generator) -> Claim:
    """One bit of one weight, drawn until it is one that this answer's arithmetic can hear at all."""
    model = scene.model
    honest = scene.answer(order, tokens)
    while True:
        name = str(generator.choice(weight_names(model)))
        weight = model.tensor(name).copy()
        row, column = (int(generator.integers(size)) for size in weight.shape)
        weight[row, column] ^= np.int8(1 << int(generator.integers(0, 7)))
        if weight[row, column] == -128:
            continue
        claim = scene.with_model(order, tokens, altered(model, {name: weight}))
        if claim.trace.root != honest.trace.root:
            return claim


def dropped_layer(scene: Scene, order: Statement, tokens: int, generator: Generator) -> Claim:
    layer = int(generator.integers(scene.model.header.layers))
    names = [f"layers.{layer}.{part}.weight" for part in ("o", "down")]
    changes = {name: np.zeros_like(scene.model.tensor(name)) for name in names}
    return scene.with_model(order, tokens, altered(scene.model, changes))


def low_rank(scene: Scene, order: Statement, tokens: int, generator: Generator) -> Claim:
    """A fine-tuned model: one matrix plus a product of two vectors."""
    name = str(generator.choice(weight_names(scene.model)))
    weight = scene.model.tensor(name).astype(np.int64)
    change = np.outer(generator.integers(-2, 3, len(weight)), generator.integers(-2, 3, weight.shape[1]))
    tuned = np.clip(weight + change, -127, 127).astype(np.int8)
    return scene.with_model(order, tokens, altered(scene.model, {name: tuned}))


def prompt_edit(scene: Scene, order: Statement, tokens: int, generator: Generator) -> Claim:
    """Runs a prompt with one other token and claims the one that was asked."""
    at = int(generator.integers(len(order.prompt)))
    edited = list(order.prompt)
    edited[at] = (edited[at] + 1 + int(generator.integers(scene.model.header.vocabulary - 1))) % (
        scene.model.header.vocabulary
    )
    ran = scene.answer(replace(order, prompt=tuple(edited)), tokens)
    return claim_rows(scene.engine, replace(order, answer=ran.statement.answer), ran.rows)


def truncated_context(scene: Scene, order: Statement, tokens: int, generator: Generator) -> Claim:
    """Answers from the end of the prompt only; the rows of the part that was cut off are right."""
    cut = int(generator.integers(1, len(order.prompt)))
    ran = scene.answer(replace(order, prompt=order.prompt[cut:]), tokens)
    statement = replace(order, answer=ran.statement.answer)
    honest = run_rows(scene.engine, statement)
    rows = CommittedRows(
        np.concatenate([honest.boundaries[:cut], ran.rows.boundaries]),
        np.concatenate([honest.kv_rows[:cut], ran.rows.kv_rows]),
    )
    return claim_rows(scene.engine, statement, rows)


def resampled(scene: Scene, order: Statement, tokens: int, sampling: Sampling) -> Claim:
    honest = scene.answer(order, tokens)
    answer = scene.engine.generate(order.prompt, sampling, tokens)
    if answer == honest.statement.answer:  # the other seed happened to choose the same tokens: change the last
        answer = (*answer[:-1], (answer[-1] + 1) % scene.model.header.vocabulary)
    statement = replace(order, answer=answer)
    return claim_rows(scene.engine, statement, run_rows(scene.engine, statement))


def other_seed(scene: Scene, order: Statement, tokens: int, generator: Generator) -> Claim:
    return resampled(scene, order, tokens, replace(Sampling(*order.sampling), seed=int(generator.integers(1 << 60))))


def other_temperature(scene: Scene, order: Statement, tokens: int, generator: Generator) -> Claim:
    return resampled(
        scene,
        order,
        tokens,
        replace(Sampling(*order.sampling), temperature_q16=int(generator.integers(100_000, 10**6))),
    )


def replayed_answer(scene: Scene, order: Statement, tokens: int, generator: Generator) -> Claim:
    """The whole trace of another request, root included."""
    return scene.answer(scene.order(scene.prompt(len(order.prompt)), Sampling(*order.sampling)), tokens)


def swapped_token(scene: Scene, order: Statement, tokens: int, generator: Generator) -> Claim:
    """One answer token is another one, and all rows are right for the text as it then stands."""
    honest = scene.answer(order, tokens)
    answer = list(honest.statement.answer)
    at = int(generator.integers(len(answer)))
    answer[at] = (answer[at] + 1 + int(generator.integers(scene.model.header.vocabulary - 1))) % (
        scene.model.header.vocabulary
    )
    statement = replace(order, answer=tuple(answer))
    return claim_rows(scene.engine, statement, run_rows(scene.engine, statement))


def forged_node(scene: Scene, order: Statement, tokens: int, generator: Generator) -> Claim:
    """An honest run whose commitment has one digest that is no row's."""
    honest = scene.answer(order, tokens)
    leaves = honest.trace.leaves.copy()
    used = 2 * scene.model.header.layers + 2
    position = int(generator.integers(len(honest.statement.tokens) - 1))
    inner = int(generator.integers(1, used))
    leaves[position * honest.trace.shape.leaves + inner] = np.frombuffer(keccak256(generator.bytes(8)), np.uint8)
    return Claim(honest.statement, Trace(honest.trace.shape, honest.statement, leaves), honest.rows)


def stale_cache(scene: Scene, order: Statement, tokens: int, generator: Generator) -> Claim:
    """One bit of one key-value row is wrong, and everything after it follows from the right one."""
    honest = scene.answer(order, tokens)
    kv_rows = honest.rows.kv_rows.copy()
    position, layer, at = (int(generator.integers(size)) for size in kv_rows.shape)
    kv_rows[position, layer, at] ^= np.uint8(1 << int(generator.integers(8)))
    return claim_rows(scene.engine, honest.statement, CommittedRows(honest.rows.boundaries, kv_rows))


CHEATS: dict[str, Cheat] = {
    cheat.__name__: cheat
    for cheat in (
        smaller_model,
        four_bits,
        one_bit,
        dropped_layer,
        low_rank,
        prompt_edit,
        truncated_context,
        other_seed,
        other_temperature,
        replayed_answer,
        swapped_token,
        forged_node,
        stale_cache,
    )
}
