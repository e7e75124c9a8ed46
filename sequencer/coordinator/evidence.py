"""Keeps on disk what workers said when they did not agree, so that anybody can execute the block again and judge.

One folder a dispute: `evidence.json` (the question, every answer, the verdict) and, beside it, the proposed columns and
the columns that were sent as results. Knows nothing of streams.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from protos.messages import BlockAnswer, ExecuteBlock

__all__ = ["EvidenceStore"]


class EvidenceStore:
    """A folder of disputes. Files are synced before `keep` returns; nothing is ever overwritten."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, question: ExecuteBlock, answers: Mapping[bytes, BlockAnswer], verdict: Mapping[str, Any]) -> Path:
        """Write one dispute; `answers` are keyed by the worker's address. Returns its folder."""
        folder = self._fresh_folder(f"block-{question.environment.number}")
        _write(folder / "transactions.columns", question.transactions.to_bytes())
        for address, answer in answers.items():
            if answer.body is not None:
                _write(folder / f"{address.hex()}.receipts.columns", answer.body.receipts.to_bytes())
                _write(folder / f"{address.hex()}.difference.columns", answer.body.difference.to_bytes())
        record = {
            "parent_hash": question.parent_hash,
            "environment": asdict(question.environment),
            "answers": {address.hex(): asdict(answer.commitments) for address, answer in answers.items()},
            "verdict": dict(verdict),
        }
        _write(folder / "evidence.json", json.dumps(record, indent=1, default=_plain).encode())
        return folder

    def _fresh_folder(self, name: str) -> Path:
        self._folder.mkdir(parents=True, exist_ok=True)
        number = 0
        while True:
            folder = self._folder / (f"{name}-{number}" if number else name)
            try:
                folder.mkdir()
            except FileExistsError:
                number += 1
            else:
                return folder


def _write(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _plain(value: object) -> str:
    assert isinstance(value, bytes), f"evidence holds bytes and JSON, not {type(value).__name__}"
    return "0x" + value.hex()
