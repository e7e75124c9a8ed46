"""`replay`, `audit` and `dispute-demo`: the proofs of exact inference, by hand, on what `run --save` wrote."""

import secrets
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from core.contract import Event
from core.errors import InvalidInput
from core.execution import BlockContext, CallRequest
from core.fork import Fork
from core.hashing import keccak256
from core.memory_state import AccountContents, MemoryState
from worker.evm.native_executor import NativeExecutor
from worker.inference.answer_file import AnswerFile
from worker.inference.cli_options import MODELS_DIR, AsJson, ModelsDir, say, write_json
from worker.inference.dispute_parties import DisputeParties
from worker.inference.exact.devices import DeviceChoice
from worker.inference.exact.model import ExactModel, ModelStore
from worker.inference.exact.specification import exp2_table, sigmoid_table
from worker.inference.proof_arithmetic import ProofArithmetic
from worker.inference.proof_engine import ProofEngine
from zk.audit import AuditKey, CommittedRows, audit, draw_units, open_unit
from zk.contracts import DISPUTE, DISPUTE_ADDRESS, predeploys
from zk.dispute import Terms, play
from zk.program import Programs
from zk.replay import replay
from zk.tape import Tape
from zk.trace import Statement, Trace

__all__ = ["app"]

app = typer.Typer(help="Check an exact answer: run it again, audit it, or dispute it.", no_args_is_help=True)

GAS_LIMIT = 16_777_216
MOVE_SECONDS = 3600
TEXT_HASH = keccak256(b"an answer file has no text")
PARTIES = (b"\x01".rjust(20, b"\x10"), b"\x02".rjust(20, b"\x10"))


@app.command("replay")
def replay_answer(
    file: Annotated[Path, typer.Argument(help="answer file")],
    device: Annotated[DeviceChoice, typer.Option(help="where it runs; the bytes are the same")] = DeviceChoice.AUTO,
    models_dir: ModelsDir = MODELS_DIR,
    as_json: AsJson = False,
) -> None:
    """Run an answer again, teacher-forced. Exit status 1, with what differs, unless every byte is equal.

    Example:  warpgrid inference replay answer.json
    """
    claimed = AnswerFile.read(file)
    statement, root = claimed.statement, claimed.trace_root
    engine = _engine(statement, models_dir, device)[1]
    started = time.perf_counter()
    verdict = replay(engine, statement, root, statement.answer)
    engine.close()
    seconds = round(time.perf_counter() - started, 3)
    if as_json:
        write_json({"accepted": verdict.accepted, "reason": verdict.reason, "seconds": seconds})
    else:
        say(f"{verdict.reason} ({seconds:.2f} s)")
    raise typer.Exit(0 if verdict.accepted else 1)


@app.command("audit")
def audit_answer(
    file: Annotated[Path, typer.Argument(help="answer file")],
    draws: Annotated[int, typer.Option(help="units to look at", min=1)] = 16,
    models_dir: ModelsDir = MODELS_DIR,
    as_json: AsJson = False,
) -> None:
    """Play both sides of an audit on this machine: open random units of an answer and check them.

    Example:  warpgrid inference audit answer.json --draws 32
    """
    claimed = AnswerFile.read(file)
    statement, root = claimed.statement, claimed.trace_root
    model, engine = _engine(statement, models_dir)
    trace, rows = _run(engine, statement)
    engine.close()
    arithmetic = ProofArithmetic(model)
    units = draw_units(secrets.token_bytes(32), root, model.header.layers, statement, draws)
    openings = [open_unit(arithmetic, trace, rows, unit) for unit in units]
    key = AuditKey(arithmetic, secrets.token_bytes(32))
    for unit in units:
        roles = ("qkv", "o", "gate_up", "down")
        names = ["head"] if unit.layer == model.header.layers else [f"layers.{unit.layer}.{role}" for role in roles]
        for name in names:
            key.key(name)
    started = time.process_time()
    verdict = audit(arithmetic, key, statement, root, trace.position_roots, units, openings)
    milliseconds = 1000 * (time.process_time() - started) / draws
    kilobytes = sum(opening.bytes for opening in openings) / draws / 1000
    if as_json:
        cost = {"units": draws, "unit_ms": round(milliseconds, 2), "unit_kilobytes": round(kilobytes, 1)}
        write_json({"accepted": verdict.accepted, "reason": verdict.reason, **cost})
    else:
        say(f"{verdict.reason}: {milliseconds:.1f} ms and {kilobytes:.0f} kB a unit")
    raise typer.Exit(0 if verdict.accepted else 1)


@app.command("dispute-demo")
def dispute_demo(
    file: Annotated[Path, typer.Argument(help="answer file of an honest answer")],
    models_dir: ModelsDir = MODELS_DIR,
    as_json: AsJson = False,
) -> None:
    """A worker changes one bit of one committed row; a challenger disputes it on a local chain, move by move.

    Example:  warpgrid inference dispute-demo answer.json
    """
    claimed = AnswerFile.read(file)
    statement, root = claimed.statement, claimed.trace_root
    model, engine = _engine(statement, models_dir)
    trace, rows = _run(engine, statement)
    engine.close()
    if trace.root != root:
        raise InvalidInput(f"{file} holds no honest answer, as `replay` shows")
    parties = DisputeParties(model)
    asked = _demo_terms(statement, parties.programs, model)
    statement = replace(statement, request_hash=asked.request_hash)
    position, inner = len(statement.tokens) // 2, 2 * (model.header.layers // 2) + 1
    leaves = trace.leaves.copy()
    leaves[position * trace.shape.leaves + inner, 0] ^= 1
    lie = Trace(trace.shape, statement, leaves)
    honest = parties.tapes(statement, rows)

    def lying(at: int, leaf: int) -> Tape:
        tape = honest(at, leaf)
        return Tape(tape.size, {**tape.cells, tape.size - 1: lie.digest(at, leaf)})

    terms = replace(asked, trace_root=lie.root)
    tell = (lambda _: None) if as_json else say
    chain = _LocalChain(terms, tell)
    tell(f"the worker changed one bit of {trace.shape.name(position * trace.shape.leaves + inner)}")
    try:
        play(chain, terms, parties.committed_worker(lie, rows, lying), parties.challenger(terms, statement))
    except InvalidInput as refusal:
        tell(f"the contract refuses the worker's proof: {refusal}")
        chain.now += MOVE_SECONDS + 1
        chain.move(terms.challenger, "timeout", terms.solidity())
    won = chain.read("winnerOf") == terms.challenger
    if as_json:
        write_json({"winner": "challenger" if won else "worker", "gas": chain.gas, "moves": chain.moves})
    tell(f"{'the challenger' if won else 'the worker'} wins, {chain.gas:,} gas in all")
    raise typer.Exit(0 if won else 1)


def _demo_terms(statement: Statement, programs: Programs, model: ExactModel) -> Terms:
    """The terms of an answer as if it had been ordered in tokens, without the root that the worker commits to."""
    return Terms(
        bytes(32),
        statement.model_root,
        programs.tree_root,
        TEXT_HASH,
        statement.prompt_hash,
        statement.sampling,
        len(statement.prompt),
        len(statement.answer),
        len(statement.answer),
        True,
        model.header.layers,
        *PARTIES,
    )


class _LocalChain:
    """The dispute contract on an EVM of its own. Implements `zk.dispute.DisputeChain`."""

    def __init__(self, terms: Terms, tell: Callable[[str], None]) -> None:
        contracts = predeploys(exp2_table().tolist(), sigmoid_table().tolist(), MOVE_SECONDS)
        accounts = {at: AccountContents(1, one.balance_wei, one.code, one.storage) for at, one in contracts.items()}
        self._state, self._executor = MemoryState(accounts), NativeExecutor()
        self._events: list[Event] = []
        self.terms, self.now, self.gas = terms, 1, 0
        self.moves: list[dict[str, str | int]] = []
        self._tell = tell

    def move(self, sender: bytes, function: str, *arguments: object) -> None:
        outcome = self._call(sender, function, *arguments)
        if not outcome.succeeded:
            raise InvalidInput(str(DISPUTE.decode_error(outcome.output)))
        self._state = self._state.apply(outcome.difference)
        self._events += [event for log in outcome.logs if (event := DISPUTE.decode_log(log)) is not None]
        self.gas += outcome.gas_used
        who = "worker" if sender == self.terms.worker else "challenger"
        self.moves.append({"who": who, "move": function, "gas": outcome.gas_used})
        self._tell(f"  {who:10} {function:12} {outcome.gas_used:>9,} gas")

    def turn(self) -> int:
        return int(self.read("turnOf"))

    def events(self) -> list[Event]:
        return self._events

    def read(self, function: str) -> Any:
        return DISPUTE.decode_result(function, self._call(bytes(20), function, self.terms.solidity()).output)

    def _call(self, sender: bytes, function: str, *arguments: object) -> Any:
        context = BlockContext(Fork.OSAKA, 1, 1, self.now, gas_limit=4 * GAS_LIMIT, coinbase=bytes(20))
        data = DISPUTE.encode_call(function, *arguments)
        return self._executor.call(self._state, context, CallRequest(sender, DISPUTE_ADDRESS, GAS_LIMIT, 0, data))


def _engine(
    statement: Statement, models_dir: Path, device: DeviceChoice = DeviceChoice.CPU
) -> tuple[ExactModel, ProofEngine]:
    model = ExactModel(ModelStore(models_dir).find(statement.model_root.hex()))
    return model, ProofEngine(model, model.root, tokens_max=len(statement.tokens), device=device)


def _run(engine: ProofEngine, statement: Statement) -> tuple[Trace, CommittedRows]:
    """The honest trace of a statement's tokens, with its rows."""
    parts = list(engine.prefill(statement))
    rows = CommittedRows(
        np.concatenate([part.boundaries for part in parts]), np.concatenate([part.kv_rows for part in parts])
    )
    return engine.commit(statement, rows), rows
