"""Feeds: everyone who listens gets everything, or learns that something was missed."""

import pytest

from sequencer.feed import Feed, ListenerTooSlow


async def test_listeners_receive_from_when_they_listen() -> None:
    feed: Feed[int] = Feed()
    first = feed.listen()
    feed.publish(1)
    second = feed.listen()
    feed.publish(2)
    assert first.taken() == [1, 2]
    assert second.taken() == [2]


async def test_a_slow_listener_is_cut_off_and_told() -> None:
    feed: Feed[int] = Feed()
    slow, quick = feed.listen(2), feed.listen(10)
    for item in range(4):
        feed.publish(item)
    assert quick.taken() == [0, 1, 2, 3]
    received: list[int] = []
    with pytest.raises(ListenerTooSlow):  # noqa: PT012 - the loop is what raises
        async for item in slow:
            received.append(item)
    assert received == [0, 1]
    assert len(feed) == 1


async def test_closing_ends_the_iteration() -> None:
    feed: Feed[int] = Feed()
    listening = feed.listen()
    feed.publish(1)
    listening.close()
    listening.close()
    feed.publish(2)
    assert [item async for item in listening] == [1]
