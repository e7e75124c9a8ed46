"""Small exact models on disk, with a tokenizer for every byte and a chat template, for tests of whole engines."""

from collections.abc import Sequence
from pathlib import Path

from tests.unit.worker.inference.random_models import random_model
from worker.inference.answer_file import AnswerFile
from worker.inference.exact.model import ExactModel, ModelWriter
from worker.inference.exact.sampling import Sampling
from worker.inference.exact.specification import tensor_specs
from worker.inference.exact.tokenizer import byte_pair_tokenizer
from worker.inference.proof_engine import ProofEngine

__all__ = ["END_TOKEN", "write_answer", "write_model"]

END_TOKEN = 1
TEMPLATE = "{% for message in messages %}<s>{{ message.role }}\n{{ message.content }}<e>{% endfor %}<s>assistant\n"


def _alphabet() -> list[str]:
    """GPT-2's printable characters for the 256 bytes."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    characters = {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}
    return [characters[byte] for byte in range(256)]


def write_model(folder: Path, seed: int, merges: Sequence[tuple[str, str]] = (), **shape: int) -> ExactModel:
    """A random model of 258 tokens: `<s>`, `<e>` (which ends an answer), then the bytes. Each pair in `merges` is a
    further token of the tokenizer that the model lacks."""
    model = random_model(seed, vocabulary=258, **shape)
    tokens = ["<s>", "<e>", *_alphabet(), *(first + second for first, second in merges)]
    tokenizer = byte_pair_tokenizer(
        tokens, [f"{first} {second}" for first, second in merges], "gpt-2", ["<s>", "<e>"], []
    )
    folder.mkdir()
    writer = ModelWriter(folder, model.header)
    for spec in tensor_specs(model.header):
        writer.tensor(spec.name, model.tensor(spec.name))
    writer.finish(tokenizer, TEMPLATE, {"name": "bytes"})
    return ExactModel(folder)


def write_answer(model: ExactModel, file: Path, prompt: tuple[int, ...], tokens_max: int) -> Path:
    """The model's greedy answer to a prompt, as a file."""
    engine = ProofEngine(model, model.root, tokens_max=len(prompt) + tokens_max)
    statement, trace = engine.answer(prompt, Sampling(), tokens_max, bytes(32))
    engine.close()
    AnswerFile(statement, trace.root).write(file)
    return file
