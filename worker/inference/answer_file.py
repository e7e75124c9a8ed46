"""An exact answer in a file: what was asked, what was answered, and the root of its trace, for whoever checks it.

JSON: model (root), request_hash, prompt_prefix, trace_root (hexadecimal); sampling (five integers), prompt and answer
(tokens), and text, which is for reading and proves nothing.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import InvalidInput
from zk.trace import Statement

__all__ = ["AnswerFile"]


@dataclass(frozen=True, slots=True)
class AnswerFile:
    """What a worker claims: `trace_root` (32 bytes) is that of the statement, if it is honest."""

    statement: Statement
    trace_root: bytes
    text: str = ""

    @classmethod
    def read(cls, file: Path) -> "AnswerFile":
        """Raises InvalidInput for a file that holds no answer."""
        try:
            data = file.read_bytes()
        except OSError as error:
            raise InvalidInput(f"cannot read {file}: {error.strerror}; `inference run --save` writes one") from error
        try:
            content = json.loads(data)
            names = ("model", "request_hash", "prompt_prefix", "trace_root")
            model, request_hash, prefix, root = [bytes.fromhex(content[name]) for name in names]
            sampling, prompt, answer = [
                tuple(int(number) for number in content[name]) for name in ("sampling", "prompt", "answer")
            ]
            text = str(content.get("text", ""))
        except KeyError as error:
            raise InvalidInput(f"{file} is no answer file: it has no {error}") from error
        except (ValueError, TypeError, AttributeError) as error:
            raise InvalidInput(f"{file} is no answer file: {error}") from error
        if len(sampling) != 5:
            raise InvalidInput(f"{file}: sampling has five integers")
        words: Any = sampling
        return cls(Statement(model, request_hash, words, prompt, answer, prefix), root, text)

    def write(self, file: Path) -> None:
        statement = self.statement
        content = {
            "model": statement.model_root.hex(),
            "request_hash": statement.request_hash.hex(),
            "prompt_prefix": statement.prompt_prefix.hex(),
            "trace_root": self.trace_root.hex(),
            "sampling": statement.sampling,
            "prompt": statement.prompt,
            "answer": statement.answer,
            "text": self.text,
        }
        file.write_text(json.dumps(content) + "\n")
