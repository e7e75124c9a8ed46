"""Serves a role's Prometheus registry on loopback."""

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, start_http_server

from node.errors import ConfigError

__all__ = ["serving"]


@contextmanager
def serving(registry: CollectorRegistry, port: int) -> Iterator[None]:
    """Serve `registry` at http://127.0.0.1:port/metrics for as long as the context lasts; port 0 serves nothing.

    Raises ConfigError when the port is taken.
    """
    if port == 0:
        yield
        return
    try:
        server, thread = start_http_server(port, addr="127.0.0.1", registry=registry)
    except OSError as error:
        raise ConfigError(f"metrics_port {port} cannot be used: {error.strerror}") from error
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
