"""Messages that a peer could send, valid in every field."""

from typing import Any

from hypothesis import strategies as st

from core.jobs.receipt import Receipt
from core.jobs.request import JobRequest, Message, Role, Sampling, Tier
from protos.job_messages import (
    AnswerOpened,
    JobFailed,
    JobFinished,
    JobOutput,
    JobStarted,
    Product,
    SignedReceipt,
    UnitOpening,
)
from protos.messages import (
    BlockReference,
    BlockRefusal,
    Capabilities,
    Failure,
    GetBlocks,
    Goodbye,
    Gpu,
    Heartbeat,
    Hello,
    Model,
    Register,
)

__all__ = ["job_requests", "receipts", "worker_messages"]

u32 = st.integers(0, 2**32 - 1)
u64 = st.integers(0, 2**64 - 1)
u128 = st.integers(0, 2**128 - 1)
hashes = st.binary(min_size=32, max_size=32)
addresses = st.binary(min_size=20, max_size=20)
signatures = st.binary(min_size=65, max_size=65)
texts = st.text(st.characters(codec="utf-8"), max_size=64)
references = st.builds(BlockReference, u64, hashes)
attempts = st.integers(0, 2**32 - 1)

gpus = st.builds(Gpu, texts, texts, u64, u32, texts)
models = st.builds(Model, texts, hashes, u32, u128, u128, u32)
capabilities = st.builds(
    Capabilities,
    texts,
    st.lists(texts, max_size=3).map(tuple),
    texts,
    texts,
    u32,
    u64,
    u64,
    st.lists(gpus, max_size=2).map(tuple),
    st.lists(models, max_size=2).map(tuple),
    u32,
)


@st.composite
def receipts(draw: st.DrawFn) -> Receipt:
    usage = draw(u32), draw(u32)
    prices = draw(st.integers(0, 2**64)), draw(st.integers(0, 2**64))
    started_ms = draw(st.integers(0, 2**60))
    tier = draw(st.sampled_from(Tier))
    return Receipt(
        draw(hashes),
        draw(addresses),
        tier,
        draw(hashes),
        draw(hashes),
        draw(hashes),
        draw(hashes.filter(any)) if tier == Tier.EXACT else bytes(32),
        *usage,
        started_ms,
        started_ms + draw(u32),
        *prices,
        usage[0] * prices[0] + usage[1] * prices[1],
    )


job_requests = st.builds(
    JobRequest,
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=20),
    st.lists(st.builds(Message, st.sampled_from(Role), texts), min_size=1, max_size=3).map(tuple),
    st.builds(Sampling, st.integers(1, 100), st.integers(0, 2000), st.integers(1, 1000), st.integers(0, 9), u32),
    st.sampled_from(Tier),
)

worker_messages: st.SearchStrategy[Any] = st.one_of(
    st.builds(Hello, u32, u64, hashes, addresses),
    st.builds(Register, capabilities, signatures),
    st.builds(Heartbeat, u64, references, u32),
    st.builds(BlockRefusal, u64, texts, texts, references),
    st.builds(GetBlocks, u64, u64, u32),
    st.builds(JobStarted, hashes, attempts),
    st.builds(JobOutput, hashes, attempts, u64, texts),
    st.builds(
        JobFinished, hashes, attempts, texts, st.builds(SignedReceipt, receipts(), signatures), st.binary(max_size=9)
    ),
    st.builds(
        AnswerOpened,
        u32,
        hashes,
        st.binary(max_size=64),
        st.lists(
            st.builds(
                UnitOpening,
                *(st.binary(max_size=40) for _ in range(4)),
                st.lists(st.builds(Product, texts, u32, st.binary(max_size=9)), max_size=4).map(tuple),
            ),
            max_size=2,
        ).map(tuple),
    ),
    st.builds(JobFailed, hashes, attempts, texts, texts),
    st.builds(Goodbye, texts),
    st.builds(Failure, texts, texts),
)
