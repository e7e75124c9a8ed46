"""The errors of the market.

    MarketError(WarpgridError)
    ├── NoWorker                  nobody can take the job now; carries why, worker by worker
    ├── DirectoryFull             as many workers are known as are kept
    └── TransitionRefused         an event that a job's state does not allow; the job is as it was
        ├── JobEnded              it is settled or refunded
        ├── JobLate               its deadline has passed
        ├── WrongWorker           the event is from a worker that no longer has the job
        └── AnswerConflict        a second, different answer to the same job

A request that no engine could take is `core.jobs.request.RequestInvalid`; one that is not in OpenAI's form is too.
"""

from collections.abc import Mapping

from core.errors import WarpgridError

__all__ = [
    "AnswerConflict",
    "DirectoryFull",
    "JobEnded",
    "JobLate",
    "MarketError",
    "NoWorker",
    "TransitionRefused",
    "WrongWorker",
]


class MarketError(WarpgridError):
    code = "market"


class NoWorker(MarketError):
    """The message is a sentence for the client; `refusals` maps each worker's address to its reason."""

    code = "no_worker"

    def __init__(self, message: str, refusals: Mapping[bytes, str]) -> None:
        super().__init__(message)
        self.refusals = refusals


class DirectoryFull(MarketError):
    code = "directory_full"


class TransitionRefused(MarketError):
    code = "transition_refused"


class JobEnded(TransitionRefused):
    code = "job_ended"


class JobLate(TransitionRefused):
    code = "job_late"


class WrongWorker(TransitionRefused):
    code = "wrong_worker"


class AnswerConflict(TransitionRefused):
    code = "answer_conflict"
