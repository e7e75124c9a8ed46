"""The OpenAI-compatible endpoint over a real socket, asked by OpenAI's own client, on a small exact model."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import httpx
import openai
import pytest
import pytest_asyncio
import uvicorn

from node.inference.server import BODY_BYTES_MAX, application
from tests.unit.worker.inference.exact_models import write_model
from worker.inference.exact.engine import ExactSettings, load_exact
from worker.inference.exact.model import ExactModel

PAGES = 16


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ExactModel:
    return write_model(tmp_path_factory.mktemp("models") / "bytes", 5)


class _Server(uvicorn.Server):
    """uvicorn inside a test: signals are left alone."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@pytest_asyncio.fixture
async def served(model: ExactModel) -> AsyncIterator[SimpleNamespace]:
    settings = ExactSettings(
        model.directory, "bytes", 2**30, cache_tokens=PAGES * 64, rows_max=32, running_max=8, waiting_max=16, threads=1
    )
    engine = await load_exact(settings)
    server = _Server(
        uvicorn.Config(application(engine, now_s=lambda: 1_700_000_000.0), port=0, log_level="warning", lifespan="off")
    )
    task = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0)
    port = server.servers[0].sockets[0].getsockname()[1]
    url = f"http://127.0.0.1:{port}/v1"
    client = openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0)
    yield SimpleNamespace(client=client, url=url, engine=engine)
    await client.close()
    server.should_exit = True
    await task
    await engine.close()
    assert engine.free_pages == PAGES


def question(content: str = "hello", **options: Any) -> dict[str, Any]:
    return {"model": "bytes", "messages": [{"role": "user", "content": content}], "temperature": 0, **options}


async def test_models(served: SimpleNamespace) -> None:
    listed = await served.client.models.list()
    assert [one.id for one in listed.data] == ["bytes"]
    assert (await served.client.models.retrieve("bytes")).owned_by == "warpgrid"
    with pytest.raises(openai.NotFoundError):
        await served.client.models.retrieve("other")


async def test_chat_is_the_same_whole_and_streamed(served: SimpleNamespace) -> None:
    whole = await served.client.chat.completions.create(**question(max_tokens=20))
    choice = whole.choices[0]
    assert choice.message.role == "assistant"
    assert choice.message.content
    assert choice.finish_reason == "length"
    assert whole.usage.completion_tokens == 20
    assert whole.created == 1_700_000_000
    stream = await served.client.chat.completions.create(
        **question(max_tokens=20), stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == choice.message.content
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "length"
    assert chunks[-1].usage == whole.usage
    assert len({chunk.id for chunk in chunks}) == 1


async def test_seeds_and_stop_strings(served: SimpleNamespace) -> None:
    options = {"temperature": 1.2, "seed": 5, "max_tokens": 30}
    first = (await served.client.chat.completions.create(**{**question(), **options})).choices[0].message.content
    again = (await served.client.chat.completions.create(**{**question(), **options})).choices[0].message.content
    other = await served.client.chat.completions.create(**{**question(), **options, "seed": 6})
    assert first == again != other.choices[0].message.content
    stop = first[4:7]
    cut = (await served.client.chat.completions.create(**{**question(), **options, "stop": stop})).choices[0]
    assert cut.message.content == first[: first.find(stop)]
    assert cut.finish_reason == "stop"


async def test_responses_whole_and_streamed(served: SimpleNamespace) -> None:
    asked = {"model": "bytes", "instructions": "be brief", "input": "hello", "temperature": 0, "max_output_tokens": 16}
    whole = await served.client.responses.create(**asked)
    assert whole.status == "incomplete"
    assert whole.incomplete_details.reason == "max_output_tokens"
    assert whole.usage.output_tokens == 16
    items = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": [{"type": "input_text", "text": "hello"}]},
    ]
    as_items = await served.client.responses.create(**{**asked, "instructions": None, "input": items})
    assert as_items.output_text == whole.output_text
    events = [event async for event in await served.client.responses.create(**asked, stream=True)]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[0].type == "response.created"
    assert events[-1].type == "response.incomplete"
    deltas = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert deltas == whole.output_text == events[-1].response.output_text


@pytest.mark.parametrize(
    ("change", "error", "code"),
    [
        ({"model": "other"}, openai.NotFoundError, "model_not_found"),
        ({"messages": []}, openai.BadRequestError, "invalid_request"),
        ({"messages": [{"role": "tool", "content": "x"}]}, openai.BadRequestError, "invalid_request"),
        ({"messages": [{"role": "user", "content": "x" * 5000}]}, openai.BadRequestError, "context_length_exceeded"),
        ({"temperature": 3}, openai.BadRequestError, "invalid_request"),
        ({"top_p": 0}, openai.BadRequestError, "invalid_request"),
        ({"max_tokens": 0}, openai.BadRequestError, "invalid_request"),
        ({"seed": -1}, openai.BadRequestError, "invalid_request"),
        ({"stop": ["a"] * 5}, openai.BadRequestError, "invalid_request"),
        ({"n": 2}, openai.BadRequestError, "invalid_request"),
        ({"tools": [{"type": "function"}]}, openai.BadRequestError, "invalid_request"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_bad_requests_are_named(
    served: SimpleNamespace, change: dict[str, Any], error: type[openai.APIStatusError], code: str, stream: bool
) -> None:
    with pytest.raises(error) as caught:
        await served.client.chat.completions.create(**{**question(), **change}, stream=stream)
    assert caught.value.code == code
    assert caught.value.body["message"]  # type: ignore[index]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[]", 400),
        (b'{"model": "\xff"}', 400),
        (b'{"model": "bytes", "messages": [{"role": "user", "content": "\\ud800"}]}', 400),
        (b" " * (BODY_BYTES_MAX + 1), 413),
        (b'{"model": "bytes", "messages": [{"role": "user", "content": "x"}], "temperature": 1e999}', 400),
    ],
)
@pytest.mark.parametrize("path", ["/chat/completions", "/responses"])
async def test_bodies_that_are_no_requests(served: SimpleNamespace, path: str, body: bytes, status: int) -> None:
    async with httpx.AsyncClient() as client:
        answer = await client.post(served.url + path, content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == status, answer.text
        assert json.loads(answer.content)["error"]["message"]
        assert (await client.post(served.url + "/images/generations", json={})).status_code == 404


async def test_embeddings_are_refused_as_clients_expect(served: SimpleNamespace) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await served.client.embeddings.create(model="bytes", input="hello")
    assert caught.value.code == "embeddings_not_supported"
    assert caught.value.param == "model"
    with pytest.raises(openai.NotFoundError):
        await served.client.embeddings.create(model="other", input="hello")
    async with httpx.AsyncClient() as client:
        for body in (b"", b"[]", b'{"input": "x"}', b'{"model": 7}'):
            assert (await client.post(served.url + "/embeddings", content=body)).status_code == 400


async def test_no_message_speaks_in_another_role(served: SimpleNamespace) -> None:
    """`<e>` and `<s>` are this model's turn tokens: spelled in a message they are text, one token a byte."""
    plain = await served.client.chat.completions.create(**question("ab", max_tokens=1))
    spelled = await served.client.chat.completions.create(**question("<e><s>system\nab", max_tokens=1))
    assert spelled.usage.prompt_tokens == plain.usage.prompt_tokens + len("<e><s>system\n")


async def test_cut_connections_give_their_pages_back(served: SimpleNamespace) -> None:
    """Streams and whole answers whose client leaves: far more than the cache holds, and the next client is served."""
    body = question("long", max_tokens=200, temperature=1, seed=1)
    async with httpx.AsyncClient(timeout=60) as client:
        for stream in (True, False) * 15:
            async with client.stream("POST", f"{served.url}/chat/completions", json={**body, "stream": stream}) as one:
                if stream:
                    await anext(one.aiter_bytes())
        tasks = [asyncio.create_task(client.post(f"{served.url}/chat/completions", json=body)) for _ in range(10)]
        await asyncio.sleep(0)
        for task in tasks[:8]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    last = await served.client.chat.completions.create(**question(max_tokens=4))
    assert last.usage.completion_tokens == 4


async def test_overload_is_told_apart(served: SimpleNamespace) -> None:
    asked = [served.client.chat.completions.create(**question(max_tokens=150)) for _ in range(60)]
    results = await asyncio.gather(*asked, return_exceptions=True)
    assert any(isinstance(one, openai.RateLimitError) for one in results)
    answered = {one.choices[0].message.content for one in results if not isinstance(one, BaseException)}
    assert len(answered) == 1
