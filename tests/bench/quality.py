"""What exactness costs in quality: perplexity and greedy answers of an exact model against its float weights.

    python -m tests.bench.quality [CHECKPOINT] [--float-python PYTHON] [--half HALF] [--every N] [NAME=VALUE ...]

CHECKPOINT is a folder or GGUF file, the packaged SmolLM2 if left out; NAME=VALUE are fields of the import's Recipe.
Every token of both texts of ../shared/data/text is scored, in windows of 512; a recipe is chosen on the first half of
each text (`--half first --every 8` scores one window in eight of it) and reported on the second. PYTHON is an
interpreter with torch and transformers: it runs quality_float.py on the checkpoint's weights as float32; its scores are
kept in results/.
"""

import argparse
import ast
import json
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from core.jobs.request import Message, Role
from worker.inference.exact.checkpoint import Checkpoint
from worker.inference.exact.convert import Recipe, import_checkpoint, open_checkpoint
from worker.inference.exact.model import ExactModel, ModelStore
from worker.inference.exact.native import NativeEngine, sequence_rows
from worker.inference.exact.tokenizer import ChatTokenizer
from worker.inference.packaged import packaged_model_file

REPOSITORY = Path(__file__).parents[2]
TEXTS = REPOSITORY.parent / "shared" / "data" / "text"
RESULTS = Path(__file__).parent / "results"
WINDOW_TOKENS = 512
ANSWER_TOKENS = 64
PROMPTS = (
    "What is the capital of France?",
    "Explain photosynthesis to a child.",
    "Write a haiku about the sea.",
    "List three uses of a paper clip.",
    "Who wrote Hamlet?",
    "Translate 'good morning' into Spanish.",
    "What is 17 times 23?",
    "Why is the sky blue?",
    "Give me a recipe for pancakes.",
    "Summarise the plot of Romeo and Juliet.",
    "What does a compiler do?",
    "Write a Python function that reverses a string.",
    "Name the planets of the solar system.",
    "What is the difference between a virus and a bacterium?",
    "Suggest a name for a black cat.",
    "How do vaccines work?",
    "What happened in 1969?",
    "Describe a sunset in two sentences.",
    "What is a blockchain?",
    "How many legs does a spider have?",
)

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Half:
    """Mean log-likelihood loss of the float and the exact model over some windows, and the paired error of their
    difference."""

    tokens: int
    float_loss: float
    exact_loss: float
    standard_error: float

    @property
    def difference_percent(self) -> float:
        return 100 * (float(np.exp(self.exact_loss - self.float_loss)) - 1)

    def __str__(self) -> str:
        perplexities = f"fp32 {np.exp(self.float_loss):8.4f}  exact {np.exp(self.exact_loss):8.4f}"
        error = 100 * self.standard_error
        return f"{self.tokens:6d} tokens  {perplexities}  {self.difference_percent:+.3f} % (± {error:.3f})"


def windows(tokens: list[int], every: int) -> list[list[int]]:
    """All windows of a text, the last one shorter (or one in `every`)."""
    return [tokens[start : start + WINDOW_TOKENS] for start in range(0, len(tokens) - 1, WINDOW_TOKENS)][::every]


def losses(engine: NativeEngine, window: list[int]) -> Scores:
    """Negative log-likelihood (nats) of each token of a window but the first."""
    pages = range(engine.pages)
    logits = engine.forward(sequence_rows(window, 0, pages, logits_from=0)).logits[:-1]
    scores = np.empty(len(logits))
    for row, (values, token) in enumerate(zip(logits, window[1:], strict=True)):
        distances = np.subtract(values, values.max(), dtype=np.float32)  # exact: below 2^24, or the share is nil
        scores[row] = np.log(np.exp(distances / 65536).sum(dtype=np.float64)) - distances[token] / 65536
    return scores


def greedy(engine: NativeEngine, prompt: list[int], end_tokens: tuple[int, ...]) -> list[int]:
    """The first tokens of the greedy answer, up to and with an end token."""
    answer: list[int] = []
    pages, start, pending = range(engine.pages), 0, prompt
    while len(answer) < ANSWER_TOKENS:
        logits = engine.forward(sequence_rows(pending, start, pages)).logits[0]
        start += len(pending)
        pending = [int(np.argmax(logits))]
        answer += pending
        if pending[0] in end_tokens:
            break
    return answer


def compare(float_scores: list[Scores], exact_scores: list[Scores]) -> Half:
    differences = np.array([(b - a).mean() for a, b in zip(float_scores, exact_scores, strict=True)])
    joined_float, joined_exact = np.concatenate(float_scores), np.concatenate(exact_scores)
    error = float(differences.std() / len(differences) ** 0.5)
    return Half(len(joined_float), float(joined_float.mean()), float(joined_exact.mean()), error)


def export_float(checkpoint: Checkpoint, tokenizer: ChatTokenizer, folder: Path) -> None:
    """The checkpoint's weights as float32, with the token windows and prompts, for quality_float.py."""
    config = checkpoint.config
    layer = [
        *(f"self_attn.{name}_proj.weight" for name in "qkvo"),
        *(f"mlp.{name}_proj.weight" for name in ("gate", "up", "down")),
        *(f"{name}_layernorm.weight" for name in ("input", "post_attention")),
        *((f"self_attn.{name}_proj.bias" for name in "qkv") if config.qkv_bias else ()),
        *((f"self_attn.{name}_norm.weight" for name in "qk") if config.qk_norm else ()),
    ]
    names = [
        "embed_tokens.weight",
        "norm.weight",
        *(f"layers.{i}.{one}" for i in range(config.layers) for one in layer),
    ]
    tensors = {f"model.{name}": checkpoint.rows(name, 0, checkpoint.shape(name)[0]) for name in names}
    if not config.tied_head:
        tensors["lm_head.weight"] = checkpoint.rows("lm_head.weight", 0, config.vocabulary)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    model_type = "qwen2" if config.qkv_bias else "qwen3" if config.qk_norm else "llama"
    assert set(config.rotary_divisors) == {1}, "the float twin is built without rotary scaling"
    settings = {
        "architectures": [{"qwen2": "Qwen2", "qwen3": "Qwen3", "llama": "Llama"}[model_type] + "ForCausalLM"],
        "model_type": model_type,
        "hidden_size": config.model_width,
        "intermediate_size": config.feed_forward_width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.key_value_heads,
        "head_dim": config.head_width,
        "vocab_size": config.vocabulary,
        "max_position_embeddings": config.context_max,
        "rms_norm_eps": config.norm_epsilon,
        "rope_theta": float(config.rotary_base),
        "tie_word_embeddings": config.tied_head,
        "eos_token_id": list(config.end_tokens),
    }
    (folder / "config.json").write_text(json.dumps(settings))
    work = {
        "texts": {path.stem: windows(tokenizer.encode(path.read_text()), 1) for path in sorted(TEXTS.glob("*.txt"))},
        "prompts": [encode_prompt(tokenizer, prompt) for prompt in PROMPTS],
        "answer_tokens": ANSWER_TOKENS,
        "end_tokens": list(config.end_tokens),
    }
    (folder / "work.json").write_text(json.dumps(work))


def encode_prompt(tokenizer: ChatTokenizer, prompt: str) -> list[int]:
    return tokenizer.encode_chat([Message(Role.USER, prompt)])


def float_results(checkpoint: Checkpoint, tokenizer: ChatTokenizer, float_python: str | None) -> Path:
    """The float model's scores: those kept from an earlier run, or computed now (minutes to an hour)."""
    kept = RESULTS / f"quality_float_{checkpoint.provenance['source']}.npz"
    if not kept.exists():
        if float_python is None:
            raise SystemExit(f"{kept} is missing: give --float-python, an interpreter with torch and transformers")
        RESULTS.mkdir(exist_ok=True)
        with TemporaryDirectory() as folder:
            export_float(checkpoint, tokenizer, Path(folder))
            script = Path(__file__).with_name("quality_float.py")
            subprocess.run([float_python, str(script), folder, str(kept)], check=True)
    return kept


def report_answers(engine: NativeEngine, tokenizer: ChatTokenizer, float_answers: list[list[int]]) -> list[int]:
    """Print both answers to each prompt; returns how many leading tokens agree."""
    agreeing = []
    for prompt, expected in zip(PROMPTS, float_answers, strict=True):
        answer = greedy(engine, encode_prompt(tokenizer, prompt), engine.header.end_tokens)
        differs = [a != b for a, b in zip(answer, expected, strict=False)]
        same = differs.index(True) if True in differs else len(differs)
        agreeing.append(same)
        verdict = "identical" if answer == expected else f"first {same} of {len(expected)} tokens agree"
        print(f"\n> {prompt}   [{verdict}]\n  fp32:  {tokenizer.decode(expected)!r}")  # noqa: T201
        print(f"  exact: {tokenizer.decode(answer)!r}")  # noqa: T201
    return agreeing


def parse_recipe(settings: list[str]) -> Recipe:
    pairs = (setting.partition("=") for setting in settings)
    return Recipe(**{"context_max": 2048, **{name: ast.literal_eval(value) for name, _, value in pairs}})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, nargs="?")
    parser.add_argument("--float-python")
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--half", choices=["first", "second"], action="append", dest="halves")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("recipe", nargs="*")
    arguments = parser.parse_args()

    checkpoint = open_checkpoint(arguments.checkpoint or packaged_model_file())
    tokenizer = ChatTokenizer(checkpoint.tokenizer, checkpoint.chat_template)
    recipe = parse_recipe(arguments.recipe)
    baseline = np.load(float_results(checkpoint, tokenizer, arguments.float_python))
    with TemporaryDirectory() as folder:
        store = ModelStore(Path(folder))
        model = ExactModel(store.folder / import_checkpoint(checkpoint, store, "quality", recipe).hex())
        engine = NativeEngine(model, threads=arguments.threads, rows_max=WINDOW_TOKENS, pages=16)
        record = {"recipe": str(recipe), "root": model.root.hex(), "isa": engine.isa, "every": arguments.every}
        halves = arguments.halves or ["first", "second"]
        record |= score_texts(engine, tokenizer, baseline, arguments.every, halves)
        if "second" in halves:
            answers = [[int(token) for token in row if token >= 0] for row in baseline["answers"]]
            record["agreeing_tokens"] = report_answers(engine, tokenizer, answers)
        engine.close()
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    with (RESULTS / "quality.jsonl").open("a") as file:
        file.write(json.dumps({"benchmark": "quality", "commit": commit.stdout.strip(), **record}) + "\n")


def score_texts(
    engine: NativeEngine, tokenizer: ChatTokenizer, baseline: "np.lib.npyio.NpzFile", every: int, halves: list[str]
) -> dict[str, object]:
    record: dict[str, object] = {}
    for path in sorted(TEXTS.glob("*.txt")):
        started = time.monotonic()
        parts = windows(tokenizer.encode(path.read_text()), 1)
        half = len(parts) // 2
        for name in halves:
            chosen = range(0, half, every) if name == "first" else range(half, len(parts), every)
            exact = [losses(engine, parts[index]) for index in chosen]
            result = compare([baseline[path.stem][index, : len(one)] for index, one in zip(chosen, exact)], exact)  # noqa: B905
            print(f"{path.stem:12s} {name:6s} half  {result}  {time.monotonic() - started:.0f} s", flush=True)  # noqa: T201
            record[f"{path.stem}_{name}_percent"] = result.difference_percent
            record[f"{path.stem}_{name}_perplexity"] = float(np.exp(result.exact_loss))
    return record


if __name__ == "__main__":
    main()
