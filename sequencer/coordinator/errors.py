"""The errors of the coordinator. Each carries the stable code that the peer or client is told.

WarpgridError
└── CoordinatorError
    ├── JoinRefused         a worker may not attach; `code` says why
    ├── QueueFull           too many jobs wait; carries when to try again
    ├── JobUnknown          no job of this id was handed in
    ├── JobNotFunded        the escrow does not hold this job's money, or under other terms
    └── JobConflict         the job cannot do this any more (cancel after the receipt, a second request under one id)
"""

from core.errors import WarpgridError

__all__ = ["CoordinatorError", "JobConflict", "JobNotFunded", "JobUnknown", "JoinRefused", "QueueFull"]


class CoordinatorError(WarpgridError):
    code = "coordinator"


class JoinRefused(CoordinatorError):
    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


class QueueFull(CoordinatorError):
    code = "queue_full"

    def __init__(self, detail: str, retry_after_ms: int) -> None:
        super().__init__(detail)
        self.retry_after_ms = retry_after_ms


class JobUnknown(CoordinatorError):
    code = "job_unknown"


class JobNotFunded(CoordinatorError):
    code = "job_not_funded"


class JobConflict(CoordinatorError):
    code = "job_conflict"
