"""eth_getLogs, polled filters and eth_subscribe: being told of logs, blocks and transactions."""

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any

from core.chain import LogFilter, LogRecord, SealedBlock
from core.receipts import Log
from sequencer.feed import Feed, Listening
from sequencer.jsonrpc.errors import LIMIT_EXCEEDED, METHOD_NOT_FOUND, SERVER_ERROR, RpcError, invalid_params
from sequencer.jsonrpc.hexadecimal import HexError, data, read_fixed
from sequencer.jsonrpc.method import Connection, Json, Method, connected, heavy, light
from sequencer.jsonrpc.parameters import BlockReference, Parameters, read_block_number
from sequencer.mempool import PooledTransaction
from sequencer.production import NewHead
from sequencer.rpc_methods.services import Services
from sequencer.rpc_methods.shapes import header_json, log_records_json, pending_transaction_json

__all__ = ["LogCriteria", "LogQueryMethods", "matches", "read_log_criteria"]

_TOPICS_MAX = 4
_POLLED_MAX = 10_000


@dataclass(frozen=True, slots=True)
class LogCriteria:
    """A filter object: which logs, and of which blocks (either one by hash, or a range)."""

    addresses: frozenset[bytes] = frozenset()
    topics: tuple[frozenset[bytes], ...] = ()
    block_hash: bytes | None = None
    first: BlockReference | None = None
    last: BlockReference | None = None


def read_log_criteria(value: Any) -> LogCriteria:
    """Decode a filter object. Raises HexError."""
    if not isinstance(value, dict):
        raise HexError("json: cannot unmarshal non-object into Go value of type filters.input")
    block_hash, first, last = (value.get(name) for name in ("blockHash", "fromBlock", "toBlock"))
    if block_hash is not None and (first is not None or last is not None):
        raise HexError("cannot specify both BlockHash and FromBlock/ToBlock, choose one or the other")
    return LogCriteria(
        addresses=_read_addresses(value.get("address")),
        topics=_read_topics(value.get("topics")),
        block_hash=None if block_hash is None else read_fixed(block_hash, 32),
        first=None if first is None else read_block_number(first),
        last=None if last is None else read_block_number(last),
    )


def _read_addresses(value: Any) -> frozenset[bytes]:
    if value is None:
        return frozenset()
    return frozenset(_read_address(one) for one in (value if isinstance(value, list) else [value]))


def _read_address(value: Any) -> bytes:
    try:
        return read_fixed(value, 20)
    except HexError as error:
        raise HexError(f"invalid address: {error}") from error


def _read_topics(value: Any) -> tuple[frozenset[bytes], ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise HexError("json: cannot unmarshal non-array into Go value of type []interface {}")
    return tuple(_read_topic_set(one) for one in value)


def _read_topic_set(value: Any) -> frozenset[bytes]:
    """Permitted values at one position; a null anywhere permits any."""
    values = value if isinstance(value, list) else [value]
    if any(one is None for one in values):
        return frozenset()
    try:
        return frozenset(read_fixed(one, 32) for one in values)
    except HexError as error:
        raise HexError("invalid topic(s)") from error


def matches(log: Log, criteria: LogCriteria) -> bool:
    """Whether a log has the address and topics asked for."""
    if criteria.addresses and log.address not in criteria.addresses:
        return False
    if len(criteria.topics) > len(log.topics):
        return False
    return all(not wanted or topic in wanted for wanted, topic in zip(criteria.topics, log.topics, strict=False))


@dataclass(slots=True)
class _Poll:
    """An installed filter: how to get what is new, its criteria if it is about logs, and when it was last asked."""

    changes: Callable[[], list[Json]]
    criteria: LogCriteria | None
    close: Callable[[], None]
    polled_s: float


class LogQueryMethods:
    """Logs by query, by polling, and by subscription."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._polls: dict[str, _Poll] = {}
        self._admitted: Feed[PooledTransaction] = Feed()
        services.mempool.on_admitted.append(self._admitted.publish)

    def methods(self) -> Mapping[str, Method]:
        """Name to method."""
        return {
            "eth_getLogs": heavy(self.logs),
            "eth_newFilter": light(self.new_filter),
            "eth_newBlockFilter": light(self.new_block_filter),
            "eth_newPendingTransactionFilter": light(self.new_pending_filter),
            "eth_getFilterChanges": light(self.filter_changes),
            "eth_getFilterLogs": heavy(self.filter_logs),
            "eth_uninstallFilter": light(self.uninstall_filter),
            "eth_subscribe": connected(self.subscribe),
            "eth_unsubscribe": connected(self.unsubscribe),
        }

    def logs(self, parameters: Parameters) -> Json:
        parameters.at_most(1)
        return self._find(self._checked(parameters.read(0, read_log_criteria)))

    def new_filter(self, parameters: Parameters) -> Json:
        parameters.at_most(1)
        criteria = self._checked(parameters.read(0, read_log_criteria))
        return self._install(self._since_now(partial(self._logs_between, criteria)), criteria)

    def new_block_filter(self, parameters: Parameters) -> Json:
        parameters.at_most(0)
        return self._install(self._since_now(self._hashes_between))

    def new_pending_filter(self, parameters: Parameters) -> Json:
        parameters.at_most(1)
        render = _pending_renderer(full=parameters.boolean(0, default=False))
        listening = self._admitted.listen(_POLLED_MAX)
        return self._install(
            lambda: [result for entry in listening.taken() for result in render(entry)], close=listening.close
        )

    def filter_changes(self, parameters: Parameters) -> Json:
        parameters.at_most(1)
        return self._poll(parameters.string(0)).changes()

    def filter_logs(self, parameters: Parameters) -> Json:
        parameters.at_most(1)
        criteria = self._poll(parameters.string(0)).criteria
        if criteria is None:
            raise RpcError(SERVER_ERROR, "filter not found")
        return self._find(criteria)

    def uninstall_filter(self, parameters: Parameters) -> Json:
        parameters.at_most(1)
        poll = self._polls.pop(parameters.string(0), None)
        if poll is not None:
            poll.close()
        return poll is not None

    async def subscribe(self, parameters: Parameters, connection: Connection) -> Json:
        parameters.at_most(2)
        if not connection.can_notify:
            raise RpcError(SERVER_ERROR, "notifications not supported")
        kind = parameters.string(0)
        feed: Feed[Any]
        render: Callable[[Any], list[Json]]
        if kind == "newHeads":
            feed, render = self._services.heads, _head_renderer
        elif kind == "logs":
            criteria = self._checked(parameters.read_or(1, read_log_criteria, LogCriteria()))
            feed, render = self._services.heads, partial(_logs_of, criteria=criteria)
        elif kind == "newPendingTransactions":
            feed, render = self._admitted, _pending_renderer(full=parameters.boolean(1, default=False))
        else:
            raise RpcError(METHOD_NOT_FOUND, f'no "{kind[:100]}" subscription in eth namespace')
        subscription = _new_identifier()
        listening = feed.listen()
        try:
            connection.start_notifying(subscription, partial(_notify, subscription, listening, render))
        except RpcError:
            listening.close()
            raise
        return subscription

    async def unsubscribe(self, parameters: Parameters, connection: Connection) -> Json:
        parameters.at_most(1)
        if not connection.stop_notifying(parameters.string(0)):
            raise RpcError(SERVER_ERROR, "subscription not found")
        return True

    def _checked(self, criteria: LogCriteria) -> LogCriteria:
        limits = self._services.limits
        if len(criteria.topics) > _TOPICS_MAX:
            raise invalid_params("exceed max topics")
        if len(criteria.addresses) > limits.log_addresses_max:
            raise invalid_params("exceed max addresses")
        if sum(map(len, criteria.topics)) > limits.topic_values_max:
            raise invalid_params("exceed max topic values")
        return criteria

    def _find(self, criteria: LogCriteria) -> list[Json]:
        first, last = self._range(criteria)
        wanted = LogFilter(first, last, criteria.addresses, criteria.topics)
        limit = self._services.limits.log_records_max
        records = list(islice(self._services.chain.logs(wanted), limit + 1))
        if len(records) > limit:
            raise RpcError(LIMIT_EXCEEDED, f"query returned more than {limit} results; narrow the block range")
        return log_records_json(records, self._blocks_of(records))

    def _range(self, criteria: LogCriteria) -> tuple[int, int]:
        head = self._services.chain.head().number
        if criteria.block_hash is not None:
            sealed = self._services.chain.block_by_hash(criteria.block_hash)
            if sealed is None:
                raise RpcError(SERVER_ERROR, "unknown block")
            return sealed.number, sealed.number
        first, last = (self._number(one, head) for one in (criteria.first, criteria.last))
        if first > last:
            raise invalid_params("invalid block range params")
        if last > head:
            raise invalid_params("block range extends beyond current head block")
        if last - first >= self._services.limits.log_blocks_max:
            raise RpcError(LIMIT_EXCEEDED, f"at most {self._services.limits.log_blocks_max} blocks at a time")
        return first, last

    def _number(self, reference: BlockReference | None, head: int) -> int:
        if reference is None or reference.tag in ("latest", "safe", "finalized"):
            return head
        if reference.tag == "pending":
            raise invalid_params("pending logs are not supported")
        return 0 if reference.number is None else reference.number

    def _blocks_of(self, records: Sequence[LogRecord]) -> dict[int, SealedBlock]:
        blocks: dict[int, SealedBlock] = {}
        for number in {record.number for record in records}:
            sealed = self._services.chain.block(number)
            assert sealed is not None, "logs are of blocks of the chain"
            blocks[number] = sealed
        return blocks

    def _since_now(self, between: Callable[[int, int], list[Json]]) -> Callable[[], list[Json]]:
        """What `between` says of the blocks that came since this was last called."""
        seen = self._services.chain.head().number

        def changes() -> list[Json]:
            nonlocal seen
            first, seen = seen + 1, self._services.chain.head().number
            return between(first, seen) if first <= seen else []

        return changes

    def _logs_between(self, criteria: LogCriteria, first: int, last: int) -> list[Json]:
        return self._find(replace(criteria, block_hash=None, first=_at(first), last=_at(last)))

    def _hashes_between(self, first: int, last: int) -> list[Json]:
        return [data(one) for one in self._services.hashes.between(first, last)]

    def _install(
        self,
        changes: Callable[[], list[Json]],
        criteria: LogCriteria | None = None,
        close: Callable[[], None] = lambda: None,
    ) -> str:
        for identifier in [one for one, poll in self._polls.items() if self._is_stale(poll)]:
            self._polls.pop(identifier).close()
        if len(self._polls) >= self._services.limits.filters_max:
            close()
            raise RpcError(LIMIT_EXCEEDED, f"at most {self._services.limits.filters_max} filters")
        identifier = _new_identifier()
        self._polls[identifier] = _Poll(changes, criteria, close, self._services.clock.monotonic_s())
        return identifier

    def _poll(self, identifier: str) -> _Poll:
        poll = self._polls.get(identifier)
        if poll is None or self._is_stale(poll):
            raise RpcError(SERVER_ERROR, "filter not found")
        poll.polled_s = self._services.clock.monotonic_s()
        return poll

    def _is_stale(self, poll: _Poll) -> bool:
        return self._services.clock.monotonic_s() - poll.polled_s > self._services.limits.filter_lifetime_s


def _at(number: int) -> BlockReference:
    return BlockReference(number=number)


async def _notify(
    subscription: str, listening: Listening[Any], render: Callable[[Any], list[Json]], connection: Connection
) -> None:
    try:
        async for item in listening:
            for result in render(item):
                body = {"subscription": subscription, "result": result}
                await connection.send({"jsonrpc": "2.0", "method": "eth_subscription", "params": body})
    finally:
        listening.close()


def _head_renderer(head: NewHead) -> list[Json]:
    return [header_json(head.sealed.block.header, head.sealed.hash)]


def _pending_renderer(*, full: bool) -> Callable[[PooledTransaction], list[Json]]:
    if full:
        return lambda entry: [pending_transaction_json(entry.transaction, entry.hash, entry.sender)]
    return lambda entry: [data(entry.hash)]


def _logs_of(head: NewHead, criteria: LogCriteria) -> list[Json]:
    """A new block's matching logs."""
    records: list[LogRecord] = []
    log_index = 0
    for row in range(len(head.receipts)):
        for log in head.receipts.logs(row):
            if matches(log, criteria):
                records.append(LogRecord(log, head.sealed.number, row, log_index))
            log_index += 1
    return log_records_json(records, {head.sealed.number: head.sealed})


def _new_identifier() -> str:
    return "0x" + secrets.token_hex(16)
