"""Where a job's receipt was settled, from the coordinator, kept with what the client knows of the job.

The receipt itself came with the answer; its place in a batch is known once the batch is on chain. Nothing here is
believed: `node.jobs.verify` and the escrow check it.
"""

from collections.abc import Callable
from dataclasses import replace

from node.errors import ServiceError
from node.jobs.network import JobNetwork
from node.jobs.records import ClientJob
from protos.job_messages import JobQuery, JobRecord

__all__ = ["settled_job"]


def settled_job(
    network: JobNetwork, job_id: bytes, tell: Callable[[str], None]
) -> tuple[ClientJob | None, JobRecord | None]:
    """The client's own file of a job, with the receipt's place where it is known, and the coordinator's record; each of
    them None where there is none. A coordinator that does not answer is no failure, only told: what is on chain does
    not need it.
    """
    known = network.records.load(job_id)
    try:
        with network.coordinator() as coordinator:
            record = coordinator.status(JobQuery(job_id, b""))
    except ServiceError as error:
        tell(f"where the receipt was settled is not asked: {error}")
        return known, None
    if known is not None and record.inclusion is not None and known.inclusion != record.inclusion:
        known = replace(known, signed=known.signed or record.receipt, inclusion=record.inclusion)
        network.records.save(known)
    return known, record
