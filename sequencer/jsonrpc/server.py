"""Runs the application on a socket with uvicorn (uvloop, httptools, websockets)."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from sequencer.jsonrpc.application import ApplicationLimits, JsonRpcApplication

__all__ = ["JsonRpcServer"]

_BACKLOG = 1_024
_PING_INTERVAL_S = 20.0
_SHUTDOWN_S = 3


class JsonRpcServer:
    """HTTP and WebSocket on one port. `port` 0 takes any free one; `url` tells which."""

    def __init__(self, application: JsonRpcApplication, limits: ApplicationLimits, host: str, port: int) -> None:
        self._socket = socket.create_server((host, port), backlog=_BACKLOG)
        self.host = host
        self.port: int = self._socket.getsockname()[1]
        config = uvicorn.Config(
            application,
            http="httptools",
            ws="websockets-sansio",
            loop="uvloop",
            lifespan="off",
            log_level="warning",
            access_log=False,
            ws_max_size=limits.request_bytes_max,
            ws_ping_interval=_PING_INTERVAL_S,
            timeout_graceful_shutdown=_SHUTDOWN_S,
        )
        self._server = _EmbeddedServer(config)

    @property
    def url(self) -> str:
        """Where HTTP calls go."""
        return f"http://{self.host}:{self.port}"

    async def run(self) -> None:
        """Serve until `stop`."""
        await self._server.serve(sockets=[self._socket])

    def stop(self) -> None:
        """Take no further connection; `run` returns once the current calls are answered, or after three seconds."""
        self._server.should_exit = True

    async def started(self) -> None:
        """Return once calls are served."""
        await self._server.is_serving.wait()


class _EmbeddedServer(uvicorn.Server):
    """uvicorn inside a process that has more to do: signals are left alone, and others can wait for its start."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.is_serving = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.is_serving.set()
