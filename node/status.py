"""warpgrid_status and warpgrid_models: what the local view and the CLI know of a sequencer."""

from collections import deque
from collections.abc import Mapping
from typing import Any

from core.chain import ChainReader
from protos.job_messages import JobRecord, ListJobs
from sequencer.coordinator.fleet import Member
from sequencer.coordinator.service import Coordinator
from sequencer.jsonrpc.method import Method, light
from sequencer.jsonrpc.parameters import Parameters
from sequencer.ports import Clock

__all__ = ["StatusMethods"]

RATE_WINDOW_S = 5.0
_JOBS_SHOWN = 10


class StatusMethods:
    """Answers from what is in memory; blocks are counted as they are asked about."""

    def __init__(self, chain: ChainReader, coordinator: Coordinator, operator: bytes, clock: Clock) -> None:
        self._chain = chain
        self._coordinator = coordinator
        self._operator = operator
        self._clock = clock
        self._counted = chain.head().number
        self._total = 0
        self._recent: deque[tuple[float, int]] = deque()

    def methods(self) -> Mapping[str, Method]:
        """Name to method."""
        return {"warpgrid_status": light(self.status), "warpgrid_models": light(self.models)}

    def status(self, parameters: Parameters) -> dict[str, Any]:
        """Head, rates, what watchers found wrong, workers, and the newest jobs."""
        parameters.at_most(0)
        head = self._chain.head()
        jobs = self._coordinator.jobs.list_jobs(ListJobs(0, _JOBS_SHOWN)).jobs
        return {
            "operator": _hex(self._operator),
            "head": {"number": head.number, "hash": _hex(head.hash), "timestamp": head.block.header.timestamp},
            "transactions": {
                "total": self._count(head.number),
                "perSecond": round(self._rate(), 1),
            },
            "sealing": {
                "halted": self._coordinator.evidence.halt(),
                "findings": [one.as_json() for one in self._coordinator.evidence.findings],
            },
            "workers": [_worker(one) for one in self._coordinator.fleet.members()],
            "jobs": [_job(one) for one in jobs],
        }

    def models(self, parameters: Parameters) -> list[dict[str, Any]]:
        """Every model that an attached worker serves, with its cheapest price."""
        parameters.at_most(0)
        offers: dict[tuple[str, bytes], dict[str, Any]] = {}
        for member in self._coordinator.fleet.members():
            for model in member.capabilities.models:
                offer = {
                    "name": model.name,
                    "hash": _hex(model.model_hash),
                    "tier": model.tier,
                    "inputTokenWei": model.input_token_wei,
                    "outputTokenWei": model.output_token_wei,
                    "contextTokens": model.context_tokens_max,
                    "workers": 1,
                }
                known = offers.setdefault((model.name, model.model_hash), offer)
                if known is not offer:
                    known["workers"] += 1
                    for price in ("inputTokenWei", "outputTokenWei"):
                        known[price] = min(known[price], offer[price])
        return list(offers.values())

    def _count(self, head: int) -> int:
        now_s = self._clock.monotonic_s()
        while self._counted < head:
            self._counted += 1
            sealed = self._chain.block(self._counted)
            assert sealed is not None, "every block up to the head is there"
            self._total += len(sealed.block.transactions)
            self._recent.append((now_s, len(sealed.block.transactions)))
        while self._recent and self._recent[0][0] < now_s - RATE_WINDOW_S:
            self._recent.popleft()
        return self._total

    def _rate(self) -> float:
        return sum(count for _, count in self._recent) / RATE_WINDOW_S


def _worker(member: Member) -> dict[str, Any]:
    return {
        "address": _hex(member.address),
        "duty": ", ".join(member.capabilities.duties),
        "state": "draining" if member.is_draining else "attached",
        "executor": member.capabilities.executor,
        "models": [model.name for model in member.capabilities.models],
        "block": member.head.number,
        "jobsRunning": member.jobs_running,
    }


def _job(record: JobRecord) -> dict[str, Any]:
    receipt = record.receipt.receipt if record.receipt else None
    return {
        "id": _hex(record.job_id),
        "state": record.state,
        "worker": _hex(record.worker) if record.worker else None,
        "detail": record.detail,
        "audit": record.audit,
        "model": _hex(receipt.model_hash) if receipt else "",
        "tokens": receipt.output_tokens if receipt else 0,
        "paidWei": receipt.total_wei if receipt and record.state == "settled" else 0,
    }


def _hex(raw: bytes) -> str:
    return "0x" + raw.hex()
