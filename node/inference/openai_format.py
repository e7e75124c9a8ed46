"""Answers as OpenAI's API words them: chat completions, responses, their streams, models and errors.

Pure functions of what is known; what time it is and which id to use are parameters. Reference:
platform.openai.com/docs, read 2026-11. Parsing of requests is `market.requests`, which this module feeds with the
Responses API too.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from core.jobs.request import RequestInvalid
from worker.inference.engine import Completion, FinishReason, ModelDescription

__all__ = [
    "Answer",
    "chat_body_of",
    "chat_chunks",
    "chat_completion",
    "error_body",
    "event",
    "model_entry",
    "response_events",
    "response_object",
]

_RESPONSES_UNSUPPORTED: Mapping[str, tuple[object, ...]] = {
    "background": (None, False),
    "conversation": (None,),
    "previous_response_id": (None,),
    "prompt": (None,),
    "text": (None, {}, {"format": {"type": "text"}}),
    "tools": (None, []),
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What every object of one answer says. `id` has no prefix; `created` is in seconds since 1970."""

    id: str
    created: int
    model: str


def model_entry(model: ModelDescription, created: int) -> dict[str, Any]:
    return {
        "id": model.model_id,
        "object": "model",
        "created": created,
        "owned_by": "warpgrid",
        "root": model.model_hash.hex(),
        "context_window": model.context_tokens,
    }


def error_body(message: str, kind: str, code: str | None, param: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def event(data: Mapping[str, Any] | None, name: str | None = None) -> bytes:
    """One server-sent event; None is the end of a chat stream."""
    head = f"event: {name}\n".encode() if name else b""
    return head + b"data: " + (b"[DONE]" if data is None else orjson.dumps(data)) + b"\n\n"


# Chat completions


def _chat_usage(completion: Completion) -> dict[str, int]:
    return {
        "prompt_tokens": completion.input_tokens,
        "completion_tokens": completion.output_tokens,
        "total_tokens": completion.input_tokens + completion.output_tokens,
    }


def chat_completion(answer: Answer, text: str, completion: Completion) -> dict[str, Any]:
    message = {"role": "assistant", "content": text, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": completion.finish_reason.value}
    return {
        "id": f"chatcmpl-{answer.id}",
        "object": "chat.completion",
        "created": answer.created,
        "model": answer.model,
        "choices": [choice],
        "usage": _chat_usage(completion),
    }


def chat_chunks(answer: Answer, part: str | Completion | None, *, include_usage: bool) -> Iterator[dict[str, Any]]:
    """Chunks of a stream: for its beginning (None), for a piece of text, for its end."""
    base = {
        "id": f"chatcmpl-{answer.id}",
        "object": "chat.completion.chunk",
        "created": answer.created,
        "model": answer.model,
        **({"usage": None} if include_usage else {}),
    }

    def chunk(delta: Mapping[str, str], reason: str | None = None) -> dict[str, Any]:
        return {**base, "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}]}

    if part is None:
        yield chunk({"role": "assistant", "content": ""})
    elif isinstance(part, str):
        yield chunk({"content": part})
    else:
        yield chunk({}, part.finish_reason.value)
        if include_usage:
            yield {**base, "choices": [], "usage": _chat_usage(part)}


# Responses


def chat_body_of(body: object) -> dict[str, Any]:
    """A Responses request as the chat request that means the same. Raises RequestInvalid."""
    if not isinstance(body, Mapping):
        raise RequestInvalid("body", "must be a JSON object")
    for field, harmless in _RESPONSES_UNSUPPORTED.items():
        if body.get(field) not in harmless:
            raise RequestInvalid(field, "is not supported")
    instructions, given = body.get("instructions"), body.get("input")
    if instructions is not None and not isinstance(instructions, str):
        raise RequestInvalid("instructions", "must be a string")
    if not isinstance(given, str | list):
        raise RequestInvalid("input", "must be a string or a list of messages")
    messages = [{"role": "system", "content": instructions}] if instructions else []
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    messages += [_chat_message(index, item) for index, item in enumerate(items)]
    shared = ("model", "temperature", "top_p", "top_k", "seed", "stop", "stream")
    return {
        **{field: body[field] for field in shared if field in body},
        "messages": messages,
        "max_completion_tokens": body.get("max_output_tokens"),
    }


def _chat_message(index: int, item: object) -> dict[str, Any]:
    if not isinstance(item, Mapping) or item.get("type", "message") != "message":
        raise RequestInvalid(f"input[{index}]", "must be a message: no other item is supported")
    content = item.get("content")
    if isinstance(content, list):
        texts = {"input_text", "output_text"}
        content = [
            {**part, "type": "text"} if isinstance(part, Mapping) and part.get("type") in texts else part
            for part in content
        ]
    return {"role": item.get("role"), "content": content}


def _message_item(answer: Answer, text: str | None, status: str) -> dict[str, Any]:
    """The answer as an output item; without text, as it begins."""
    content = [] if text is None else [_text_part(text)]
    return {
        "id": f"msg_{answer.id}",
        "type": "message",
        "role": "assistant",
        "status": status,
        "content": content,
    }


def _text_part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def response_object(
    answer: Answer, body: Mapping[str, Any], text: str | None, completion: Completion | None
) -> dict[str, Any]:
    """A response: in progress without a completion."""
    cut = completion is not None and completion.finish_reason == FinishReason.LENGTH
    status = "in_progress" if completion is None else "incomplete" if cut else "completed"
    usage = completion and {
        "input_tokens": completion.input_tokens,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": completion.output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": completion.input_tokens + completion.output_tokens,
    }
    return {
        "id": f"resp_{answer.id}",
        "object": "response",
        "created_at": answer.created,
        "status": status,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        "instructions": body.get("instructions"),
        "max_output_tokens": body.get("max_output_tokens"),
        "model": answer.model,
        "output": [] if completion is None else [_message_item(answer, text or "", status)],
        "parallel_tool_calls": False,
        "previous_response_id": None,
        "temperature": body.get("temperature"),
        "top_p": body.get("top_p"),
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "truncation": "disabled",
        "metadata": body.get("metadata") or {},
        "usage": usage,
    }


def response_events(
    answer: Answer, body: Mapping[str, Any], part: str | Completion | None, text: str
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(name, data) of a stream's events, without their sequence numbers: for its beginning (None), for a piece of text,
    for its end. `text` is the whole answer so far.
    """
    item = {"output_index": 0, "item_id": f"msg_{answer.id}", "content_index": 0}
    if part is None:
        started = response_object(answer, body, None, None)
        yield "response.created", {"response": started}
        yield "response.in_progress", {"response": started}
        begun = _message_item(answer, None, "in_progress")
        yield "response.output_item.added", {"output_index": 0, "item": begun}
        yield "response.content_part.added", {**item, "part": _text_part("")}
    elif isinstance(part, str):
        yield "response.output_text.delta", {**item, "delta": part, "logprobs": []}
    else:
        whole = response_object(answer, body, text, part)
        yield "response.output_text.done", {**item, "text": text, "logprobs": []}
        yield "response.content_part.done", {**item, "part": _text_part(text)}
        yield "response.output_item.done", {"output_index": 0, "item": whole["output"][0]}
        yield f"response.{whole['status']}", {"response": whole}
