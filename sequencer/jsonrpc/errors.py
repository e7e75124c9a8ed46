"""What a JSON-RPC call may fail with, in geth's codes and words."""

from typing import Any

from core.errors import WarpgridError

__all__ = [
    "INTERNAL_ERROR",
    "INVALID_PARAMS",
    "INVALID_REQUEST",
    "LIMIT_EXCEEDED",
    "METHOD_NOT_FOUND",
    "PARSE_ERROR",
    "RESPONSE_TOO_LARGE",
    "REVERTED",
    "SERVER_ERROR",
    "TIMEOUT",
    "RpcError",
    "invalid_argument",
    "invalid_params",
]

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603
SERVER_ERROR = -32000
TIMEOUT = -32002
RESPONSE_TOO_LARGE = -32003
LIMIT_EXCEEDED = -32005
REVERTED = 3


class RpcError(WarpgridError):
    """An answer with an "error" member: `rpc_code`, the message, and optional `data` (any JSON)."""

    code = "rpc"

    def __init__(self, rpc_code: int, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.rpc_code = rpc_code
        self.data = data

    def to_json(self) -> dict[str, Any]:
        """The "error" member."""
        body: dict[str, Any] = {"code": self.rpc_code, "message": str(self)}
        if self.data is not None:
            body["data"] = self.data
        return body


def invalid_params(message: str) -> RpcError:
    """The parameters make no sense together, or are out of bounds."""
    return RpcError(INVALID_PARAMS, message)


def invalid_argument(position: int, message: str) -> RpcError:
    """The parameter at `position` cannot be read."""
    return RpcError(INVALID_PARAMS, f"invalid argument {position}: {message}")
