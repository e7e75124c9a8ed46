"""An OpenAI-compatible endpoint over one engine: models, chat completions, responses, as JSON or server-sent events.

Owns HTTP: sizes, status codes, streams, and clients that go away (whose answer is stopped, so that its cache pages
return). Knows nothing of how an answer is made. Whoever embeds it runs the application; `serve` does so with uvicorn.
"""

import asyncio
import secrets
import socket
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing
from typing import Any

import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from core.errors import InvalidInput
from core.jobs.request import RequestInvalid
from market.requests import ChatRequest, parse_chat_request
from node.inference.openai_format import (
    Answer,
    chat_body_of,
    chat_chunks,
    chat_completion,
    error_body,
    event,
    model_entry,
    response_events,
    response_object,
)
from worker.inference.engine import Completion, Engine, Piece
from worker.inference.errors import ContextExceeded, EngineBusy, InferenceError

__all__ = ["BODY_BYTES_MAX", "application", "listen", "serve"]

BODY_BYTES_MAX = 4 * 1024 * 1024
_SEEDS = 2**63
_SHUTDOWN_S = 5

Parts = AsyncGenerator[Piece | Completion, None]


class _ModelMissing(InvalidInput):
    """A request for a model that is not served here."""

    code = "model_not_found"


class _NoEmbeddings(InvalidInput):
    """A request for embeddings of a model that makes none."""

    code = "embeddings_not_supported"


class _BodyTooLarge(InvalidInput):
    """A body beyond BODY_BYTES_MAX."""

    code = "request_too_large"


def application(engine: Engine, *, now_s: Callable[[], float] = time.time) -> Starlette:
    """The ASGI application. It does not own the engine."""
    endpoint = _Endpoint(engine, now_s)
    return Starlette(
        routes=[
            Route("/health", endpoint.health, methods=["GET"]),
            Route("/v1/models", endpoint.models, methods=["GET"]),
            Route("/v1/models/{model:path}", endpoint.model, methods=["GET"]),
            Route("/v1/chat/completions", endpoint.chat, methods=["POST"]),
            Route("/v1/responses", endpoint.responses, methods=["POST"]),
            Route("/v1/embeddings", endpoint.embeddings, methods=["POST"]),
            Route("/{path:path}", _unknown, methods=["GET", "POST", "PUT", "PATCH", "DELETE"]),
        ],
        exception_handlers={InvalidInput: _on_error, InferenceError: _on_error},
    )


def listen(host: str, port: int) -> socket.socket:
    """A socket to serve on. Raises InvalidInput where the address is another's or no address of this machine."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except OSError as error:
        problem = f"cannot listen on {host}:{port}: {error.strerror}"
        raise InvalidInput(f"{problem}; choose another --host or --port") from error


async def serve(engine: Engine, listener: socket.socket) -> None:
    """Serve until interrupted."""
    config = uvicorn.Config(
        application(engine),
        http="httptools",
        loop="uvloop",
        lifespan="off",
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=_SHUTDOWN_S,
    )
    await uvicorn.Server(config).serve([listener])


class _Endpoint:
    """The handlers of one engine."""

    def __init__(self, engine: Engine, now_s: Callable[[], float]) -> None:
        self._engine, self._now_s = engine, now_s
        self._started = int(now_s())

    async def health(self, _: Request) -> Response:
        return _json({"status": "ok"})

    async def models(self, _: Request) -> Response:
        return _json({"object": "list", "data": [model_entry(self._engine.model, self._started)]})

    async def model(self, request: Request) -> Response:
        self._require_model(request.path_params["model"])
        return _json(model_entry(self._engine.model, self._started))

    async def chat(self, request: Request) -> Response:
        chat, answer = self._parse(await _read_body(request))
        parts = await _begin(self._engine.generate(chat.request))
        if chat.stream:
            return _stream(_chat_stream(parts, answer, include_usage=chat.include_usage))
        text, completion = await _collect(request, parts)
        return _json(chat_completion(answer, text, completion))

    async def responses(self, request: Request) -> Response:
        body = await _read_body(request)
        chat, answer = self._parse(chat_body_of(body))
        assert isinstance(body, Mapping)
        parts = await _begin(self._engine.generate(chat.request))
        if chat.stream:
            return _stream(_response_stream(parts, answer, body))
        text, completion = await _collect(request, parts)
        return _json(response_object(answer, body, text, completion))

    async def embeddings(self, request: Request) -> Response:
        """Only a model that was trained to embed allows it, and no engine here holds one: a decoder's pooled rows would
        be numbers that mean little, under a name that promises much."""
        body = await _read_body(request)
        model = body.get("model") if isinstance(body, Mapping) else None
        if not isinstance(model, str):
            raise RequestInvalid("model", "must be a string")
        self._require_model(model)
        raise _NoEmbeddings(f"the model {model!r} answers chats and was not trained to embed; ask another model")

    def _parse(self, body: object) -> tuple[ChatRequest, Answer]:
        model = self._engine.model
        chat = parse_chat_request(body, seed_default=secrets.randbelow(_SEEDS), tier=model.tier)
        self._require_model(chat.request.model)
        return chat, Answer(secrets.token_hex(12), int(self._now_s()), model.model_id)

    def _require_model(self, name: str) -> None:
        if name != self._engine.model.model_id:
            raise _ModelMissing(f"the model {name!r} is not served here, only {self._engine.model.model_id!r}")


async def _read_body(request: Request) -> object:
    """The JSON of a body. Raises RequestInvalid and _BodyTooLarge."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_BYTES_MAX:
            raise _BodyTooLarge(f"the body is larger than {BODY_BYTES_MAX} bytes")
    try:
        return orjson.loads(bytes(body))
    except orjson.JSONDecodeError as error:
        raise RequestInvalid("body", f"is not JSON in UTF-8: {error}") from error


async def _begin(parts: Parts) -> Parts:
    """The same parts, once the first is there: what is wrong with a request is known before a status is sent."""
    first = await anext(parts)

    async def all_parts() -> Parts:
        async with aclosing(parts):
            yield first
            async for part in parts:
                yield part

    return all_parts()


async def _collect(request: Request, parts: Parts) -> tuple[str, Completion]:
    """The whole answer. A client that goes away stops it: raises ClientDisconnect."""

    async def whole() -> tuple[str, Completion]:
        texts: list[str] = []
        async with aclosing(parts):
            async for part in parts:
                if isinstance(part, Completion):
                    return "".join(texts), part
                texts.append(part.text)
        raise AssertionError("an answer ends with its completion")

    answering = asyncio.ensure_future(whole())
    leaving = asyncio.ensure_future(_disconnect(request))
    try:
        await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not answering.done():
            raise ClientDisconnect
        return answering.result()
    finally:
        for task in (answering, leaving):
            task.cancel()
        await asyncio.gather(answering, leaving, return_exceptions=True)


async def _disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _chat_stream(parts: Parts, answer: Answer, *, include_usage: bool) -> AsyncIterator[bytes]:
    async with aclosing(parts):
        for chunk in chat_chunks(answer, None, include_usage=include_usage):
            yield event(chunk)
        try:
            async for part in parts:
                said = part.text if isinstance(part, Piece) else part
                for chunk in chat_chunks(answer, said, include_usage=include_usage):
                    yield event(chunk)
        except InferenceError as error:  # the status is sent; the stream itself must say it
            yield event(_describe(error)[1])
        yield event(None)


async def _response_stream(parts: Parts, answer: Answer, body: Mapping[str, Any]) -> AsyncIterator[bytes]:
    number, text = 0, ""
    async with aclosing(parts):

        def encoded(said: str | Completion | None) -> list[bytes]:
            nonlocal number
            found = []
            for name, data in response_events(answer, body, said, text):
                found.append(event({"type": name, "sequence_number": number, **data}, name))
                number += 1
            return found

        for one in encoded(None):
            yield one
        try:
            async for part in parts:
                said = part.text if isinstance(part, Piece) else part
                text += said if isinstance(said, str) else ""
                for one in encoded(said):
                    yield one
        except InferenceError as error:
            described = {"message": str(error), "code": error.code, "param": None}
            yield event({"type": "error", "sequence_number": number, **described}, "error")


def _describe(error: Exception) -> tuple[int, dict[str, Any]]:
    """HTTP status and body of an error, as OpenAI's clients tell them apart."""
    message, code = str(error), str(getattr(error, "code", "internal"))
    if isinstance(error, _ModelMissing):
        return 404, error_body(message, "invalid_request_error", code, "model")
    if isinstance(error, _NoEmbeddings):
        return 400, error_body(message, "invalid_request_error", code, "model")
    if isinstance(error, _BodyTooLarge):
        return 413, error_body(message, "invalid_request_error", code)
    if isinstance(error, ContextExceeded):
        return 400, error_body(message, "invalid_request_error", "context_length_exceeded", "messages")
    if isinstance(error, InvalidInput):
        return 400, error_body(message, "invalid_request_error", code, getattr(error, "field", None))
    if isinstance(error, EngineBusy):
        return 429, error_body(message, "rate_limit_error", "rate_limit_exceeded")
    return 500, error_body(message, "server_error", code)


async def _on_error(_: Request, error: Exception) -> Response:
    status, body = _describe(error)
    return _json(body, status)


async def _unknown(request: Request) -> Response:
    message = f"there is no {request.method} {request.url.path} here"
    return _json(error_body(message, "invalid_request_error", "unknown_url"), 404)


def _json(body: Mapping[str, Any], status: int = 200) -> Response:
    return Response(orjson.dumps(body), status, media_type="application/json")


def _stream(events: AsyncIterator[bytes]) -> Response:
    return StreamingResponse(events, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})
