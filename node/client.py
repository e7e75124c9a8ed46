"""A small JSON-RPC client for the commands of the CLI. Knows HTTP and JSON-RPC, not what is asked."""

import itertools
import urllib.error
import urllib.request
from typing import Any

import orjson

from node.errors import ServiceError

__all__ = ["RpcClient"]

TIMEOUT_S = 10.0
_RESPONSE_BYTES_MAX = 64 << 20


class RpcClient:
    """Calls methods of one JSON-RPC endpoint, one at a time.

    `call` returns the result; it raises ServiceError with the server's code and message, or saying that nobody answers.
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
        except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
            raise ServiceError(
                f"no answer from {self.url}: {error}. Does the network run? `warpgrid testnet status`"
            ) from error
        except orjson.JSONDecodeError as error:
            raise ServiceError(f"{self.url} did not answer with JSON") from error
        if "error" in reply:
            raise ServiceError(f"{method}: {reply['error'].get('message')} (code {reply['error'].get('code')})")
        return reply["result"]
