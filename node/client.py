"""A small JSON-RPC client for the commands of the CLI. Knows HTTP and JSON-RPC, not what is asked."""

import itertools
import urllib.request
from http.client import HTTPException
from typing import Any

import orjson

from node.errors import ConfigError, ServiceError, ServiceUnreachable

__all__ = ["RpcClient", "parse_address"]

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
        try:
            request = urllib.request.Request(self.url, body, {"content-type": "application/json"})
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
                reply = orjson.loads(answer.read(_RESPONSE_BYTES_MAX))
        except (OSError, HTTPException) as error:
            raise ServiceUnreachable(
                f"no answer from {self.url}: {error}. Does the network run? `warpgrid testnet status`"
            ) from error
        except orjson.JSONDecodeError as error:
            raise ServiceError(f"{self.url} did not answer with JSON") from error
        except ValueError as error:
            raise ServiceError(f"{self.url!r} is not the URL of a JSON-RPC endpoint: {error}") from error
        if isinstance(reply, dict) and isinstance(reply.get("error"), dict):
            fault = reply["error"]
            raise ServiceError(
                f"{method}: {fault.get('message')} (code {fault.get('code')})", _bytes(fault.get("data"))
            )
        if not isinstance(reply, dict) or "result" not in reply:
            raise ServiceError(f"{self.url} did not answer with JSON-RPC")
        return reply["result"]


def parse_address(text: str) -> tuple[str, int]:
    """Host and port of `host:port`. Raises ConfigError."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65_536:
        raise ConfigError(f"the address must be host:port, not {text!r}")
    return host, int(port)


def _bytes(data: object) -> bytes:
    """What a revert returned; servers put other things there, too."""
    try:
        return bytes.fromhex(data.removeprefix("0x")) if isinstance(data, str) else b""
    except ValueError:
        return b""
