"""A small JSON-RPC client for the commands of the CLI. Knows HTTP and JSON-RPC, not what is asked."""

import itertools
import urllib.request
from http.client import HTTPException
from typing import Any

import orjson

from node.errors import ServiceError, ServiceUnreachable

__all__ = ["RpcClient"]

TIMEOUT_S = 10.0
_RESPONSE_BYTES_MAX = 64 << 20


class RpcClient:
    """Calls methods of one JSON-RPC endpoint, one at a time.

    `call` returns the result; it raises ServiceError with the server's code and message, ServiceUnreachable when nobody
    answers.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._ids = itertools.count(1)

    def call(self, method: str, *params: Any) -> Any:
        body = orjson.dumps({"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": params})
        request = urllib.request.Request(self.url, body, {"content-type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
                reply = orjson.loads(answer.read(_RESPONSE_BYTES_MAX))
        except (OSError, HTTPException) as error:
            raise ServiceUnreachable(
                f"no answer from {self.url}: {error}. Does the network run? `warpgrid testnet status`"
            ) from error
        except orjson.JSONDecodeError as error:
            raise ServiceError(f"{self.url} did not answer with JSON") from error
        if "error" in reply:
            fault = reply["error"]
            data = fault.get("data")
            revert = bytes.fromhex(data[2:]) if isinstance(data, str) and data.startswith("0x") else b""
            raise ServiceError(f"{method}: {fault.get('message')} (code {fault.get('code')})", revert)
        return reply["result"]
