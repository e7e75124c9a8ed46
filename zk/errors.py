"""The errors of `zk`.

    ProofsError(WarpgridError)
    ├── TraceInvalid              rows, openings or statements of the wrong shape, or not under the stated root
    ├── OpeningInvalid            a worker's answer to a challenge that cannot be what it committed to
    └── MoveInvalid               a move that the rules of a dispute do not allow

All are `InvalidInput`: a peer's data is wrong. A lie that is *proven* is a value (`Finding`), not an error.
"""

from core.errors import InvalidInput

__all__ = ["MoveInvalid", "OpeningInvalid", "ProofsError", "TraceInvalid"]


class ProofsError(InvalidInput):
    code = "proofs"


class TraceInvalid(ProofsError):
    code = "invalid_trace"


class OpeningInvalid(ProofsError):
    code = "invalid_opening"


class MoveInvalid(ProofsError):
    code = "invalid_move"
