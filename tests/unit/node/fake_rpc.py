"""A JSON-RPC server on loopback that answers from a table; what `node` asks of a sequencer, without one."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = ["Refusal", "serving"]


class Refusal(Exception):
    """A JSON-RPC error that a method of the table answers with."""

    def __init__(self, code: int, message: str, data: object = None) -> None:
        super().__init__(message)
        self.body = {"code": code, "message": message, "data": data}


@contextmanager
def serving(methods: Mapping[str, Callable[..., Any]], raw: bytes | None = None) -> Iterator[str]:
    """The URL of a server that answers with `methods`, or with `raw` whatever is asked."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            reply: dict[str, Any] = {"jsonrpc": "2.0", "id": asked["id"]}
            try:
                reply["result"] = methods[asked["method"]](*asked["params"])
            except Refusal as refusal:
                reply["error"] = refusal.body
            body = json.dumps(reply).encode() if raw is None else raw
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Tests print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
