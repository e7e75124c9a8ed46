"""Keeps on disk what workers said when they did not agree, so that anybody can execute the block again and judge.

One folder for each dispute about a block that was to be sealed (`block-N`: the question, every answer, the verdict,
the proposed columns and those that were sent as results), and one for each finding about a block that had been sealed
(`finding-N-WORKER`: the block, and what its finder signed). Knows nothing of streams.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from core.block import encode_block
from core.chain import SealedBlock
from core.errors import StoreCorrupt
from core.files import write_whole
from protos.messages import BlockAnswer, ExecuteBlock, SignedFinding
from protos.rpc import encode

__all__ = ["EvidenceStore", "Finding"]

_DISPUTES_PER_BLOCK_MAX = 8
_FINDINGS_MAX = 256
_FINDING_FILE = "finding.json"


@dataclass(frozen=True, slots=True)
class Finding:
    """A sealed block that a replica, executing it anew, found wrong. `vouchers` are who gave the sealed outcome.

    With `halts`, nothing is sealed until an operator has judged it and moved its folder (`name`) away.
    """

    name: str
    number: int
    block_hash: bytes
    worker: bytes
    executor: str
    reason: str
    vouchers: tuple[bytes, ...]
    halts: bool
    at_ms: int

    def as_json(self) -> dict[str, Any]:
        """Binary fields in hexadecimal."""
        plain = {name: _plain(value) if isinstance(value, bytes) else value for name, value in asdict(self).items()}
        return plain | {"vouchers": [_plain(one) for one in self.vouchers]}

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> "Finding":
        """The inverse of `as_json`. Raises KeyError, TypeError or ValueError."""
        binary = {name: bytes.fromhex(raw[name][2:]) for name in ("block_hash", "worker")}
        return cls(**{**raw, **binary, "vouchers": tuple(bytes.fromhex(one[2:]) for one in raw["vouchers"])})


class EvidenceStore:
    """A folder of disputes and findings. Files are on disk before `keep` returns; nothing is ever overwritten.

    It is bounded: of one block a few disputes are kept, of one worker one finding a block.
    """

    def __init__(self, folder: Path) -> None:
        """Raises StoreCorrupt when a finding on disk is not what this class wrote."""
        self._folder = folder
        self._findings = {one.name: one for one in map(_read_finding, sorted(folder.glob(f"*/{_FINDING_FILE}")))}

    @property
    def findings(self) -> list[Finding]:
        """Every finding that was kept and not moved away before this process began."""
        return list(self._findings.values())

    def halt(self) -> str | None:
        """Why nothing may be sealed, or None."""
        for one in self._findings.values():
            if one.halts:
                return (
                    f"sealing is halted: watcher 0x{one.worker.hex()} found block {one.number} wrong ({one.reason}); "
                    f"judge {self._folder / one.name}, move it away, and start the sequencer again"
                )
        return None

    def keep(self, question: ExecuteBlock, answers: Mapping[bytes, BlockAnswer], verdict: Mapping[str, Any]) -> Path:
        """Write one dispute; `answers` are keyed by the worker's address. Returns its folder.

        A block that is disputed again and again is kept the first few times; after that the last folder is returned.
        """
        name = f"block-{question.environment.number}"
        folder = self._folder / name
        for again in range(1, _DISPUTES_PER_BLOCK_MAX):
            if not folder.exists():
                break
            folder = self._folder / f"{name}-{again}"
        if folder.exists():
            return folder
        write_whole(folder / "transactions.columns", question.transactions.to_bytes())
        for address, answer in answers.items():
            if answer.body is not None:
                write_whole(folder / f"{address.hex()}.receipts.columns", answer.body.receipts.to_bytes())
                write_whole(folder / f"{address.hex()}.difference.columns", answer.body.difference.to_bytes())
        record = {
            "parent_hash": question.parent_hash,
            "environment": asdict(question.environment),
            "answers": {address.hex(): asdict(answer.commitments) for address, answer in answers.items()},
            "verdict": dict(verdict),
        }
        _write_json(folder / "evidence.json", record)
        return folder

    def keep_finding(self, finding: Finding, sealed: SealedBlock, signed: SignedFinding) -> None:
        """Write a finding beside its block and what was signed; it counts from then on, as long as there is room."""
        if finding.name in self._findings or len(self._findings) >= _FINDINGS_MAX:
            return
        folder = self._folder / finding.name
        write_whole(folder / "block.rlp", encode_block(sealed.block))
        write_whole(folder / "signed_finding.binpb", encode(signed))
        _write_json(folder / _FINDING_FILE, finding.as_json())
        self._findings[finding.name] = finding


def _read_finding(path: Path) -> Finding:
    try:
        return Finding.from_json(json.loads(path.read_bytes()))
    except (ValueError, KeyError, TypeError) as error:
        raise StoreCorrupt(f"{path} is not a finding: {error}") from error


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    write_whole(path, json.dumps(content, indent=1, default=_plain).encode())


def _plain(value: object) -> str:
    assert isinstance(value, bytes), f"evidence holds bytes and JSON, not {type(value).__name__}"
    return "0x" + value.hex()
