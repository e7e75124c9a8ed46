"""Takes in what replicas found wrong with sealed blocks: checks who says it and keeps it; a watcher's halts sealing.

A watcher executes every sealed block anew with a second EVM; its word counts here as it does in a dispute. Any other
replica may be a liar that wants the chain to stand still: what it found is kept for whoever judges, and halts nothing.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor as ThreadExecutor

import structlog

from core.chain import ChainReader
from core.chain_rules import commitments_in
from protos.errors import MalformedMessage, UnexpectedMessage
from protos.handshake import finding_digest, recover_signer
from protos.messages import FindingKept, SignedFinding
from protos.rpc import encode
from sequencer.coordinator.evidence import EvidenceStore, Finding
from sequencer.coordinator.fleet import DUTY_WATCHER, Fleet, Member

__all__ = ["Findings"]

_log = structlog.get_logger(__name__)


class Findings:
    """Handles SignedFinding. `vouchers` names those on whose answers a block of late was sealed."""

    def __init__(
        self,
        chain: ChainReader,
        fleet: Fleet,
        evidence: EvidenceStore,
        vouchers: Callable[[int], Sequence[bytes]],
        threads: ThreadExecutor,
        *,
        now_ms: Callable[[], int],
    ) -> None:
        self._chain = chain
        self._evidence = evidence
        self._vouchers = vouchers
        self._threads = threads
        self._now_ms = now_ms
        fleet.on(SignedFinding, self._on_finding)

    async def _on_finding(self, member: Member, signed: SignedFinding) -> None:
        finding = signed.finding
        digest = finding_digest(self._chain.config.chain_id, encode(finding))
        if recover_signer(digest, signed.signature) != member.address:
            raise MalformedMessage("the finding is not signed by the worker that sent it")
        sealed = self._chain.block(finding.block.number)
        if sealed is None or sealed.hash != finding.block.hash:
            raise UnexpectedMessage(f"block {finding.block.number} of the finding is not one of this chain")
        if finding.commitments == commitments_in(sealed.block.header):
            raise UnexpectedMessage(f"the finding agrees with block {finding.block.number}")
        kept = Finding(
            f"finding-{sealed.number}-{member.address.hex()}",
            sealed.number,
            sealed.hash,
            member.address,
            finding.executor,
            finding.reason,
            tuple(self._vouchers(sealed.number)),
            member.has_duty(DUTY_WATCHER),
            self._now_ms(),
        )
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._threads, self._evidence.keep_finding, kept, sealed, signed)
        _log.error("sealed_block_found_wrong", number=sealed.number, worker=member.address.hex(), reason=kept.reason)
        await member.post(FindingKept(finding.block))
