"""The float half of quality.py: run by an interpreter with torch and transformers, on a folder that quality.py wrote.

    python quality_float.py FOLDER RESULT.npz

Writes the float32 model's loss of every token of every window (rows padded with NaN) and its greedy answers (padded
with -1).
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM


def padded(rows: list[list[float]], fill: float) -> np.ndarray:
    out = np.full((len(rows), max(map(len, rows))), fill)
    for index, row in enumerate(rows):
        out[index, : len(row)] = row
    return out


def main(folder: Path, result: Path) -> None:
    torch.set_grad_enabled(False)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    work = json.loads((folder / "work.json").read_text())
    arrays: dict[str, Any] = {}
    for name, windows in work["texts"].items():
        rows = []
        for window in windows:
            tokens = torch.tensor([window])
            logits = model(tokens).logits[0, :-1]
            rows.append(torch.nn.functional.cross_entropy(logits, tokens[0, 1:], reduction="none").tolist())
        arrays[name] = padded(rows, np.nan)
    answers = []
    for prompt in work["prompts"]:
        settings = {"max_new_tokens": work["answer_tokens"], "do_sample": False, "eos_token_id": work["end_tokens"]}
        tokens = model.generate(torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt)), **settings)
        answers.append(tokens[0, len(prompt) :].tolist())
    np.savez(result, **arrays, answers=padded(answers, -1).astype(np.int64))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
