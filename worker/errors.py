"""The errors of `worker`.

WarpgridError
├── ChainRejected      a block of the sequencer does not follow from its parent; this replica does not go on
└── CannotJoin         the sequencer will not have this worker, and asking again is of no use; the message says why
"""

from core.errors import WarpgridError

__all__ = ["CannotJoin", "ChainRejected"]


class ChainRejected(WarpgridError):
    code = "chain_rejected"


class CannotJoin(WarpgridError):
    """`code` is the sequencer's."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
