"""What the sequencer counts, in a registry that its owner passes in (Prometheus' data model)."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

__all__ = ["SequencerMetrics"]

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class SequencerMetrics:
    """Counters and gauges of the block path and of JSON-RPC."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.blocks = Counter("warpgrid_blocks", "Blocks sealed", registry=registry)
        self.head = Gauge("warpgrid_head_number", "Number of the newest block", registry=registry)
        self.transactions = Counter("warpgrid_transactions", "Transactions included", registry=registry)
        self.gas = Counter("warpgrid_gas", "Gas used by included transactions", registry=registry)
        self.rejections = Counter(
            "warpgrid_rejections", "Transactions that executors refused", ["reason"], registry=registry
        )
        self.unavailable = Counter(
            "warpgrid_execution_unavailable", "Blocks that nobody could execute when asked", registry=registry
        )
        self.execution_seconds = Histogram(
            "warpgrid_execution_seconds", "Waiting for a block's agreed outcome", buckets=_SECONDS, registry=registry
        )
        self.sealing_seconds = Histogram(
            "warpgrid_sealing_seconds", "Roots, header and durable append", buckets=_SECONDS, registry=registry
        )
        self.pending = Gauge("warpgrid_mempool_pending", "Transactions that can be executed", registry=registry)
        self.queued = Gauge("warpgrid_mempool_queued", "Transactions beyond a nonce gap", registry=registry)
        self.requests = Counter(
            "warpgrid_jsonrpc_requests", "JSON-RPC calls answered", ["method", "outcome"], registry=registry
        )
        self.request_seconds = Histogram(
            "warpgrid_jsonrpc_seconds",
            "Time to answer a JSON-RPC call",
            ["method"],
            buckets=_SECONDS,
            registry=registry,
        )
