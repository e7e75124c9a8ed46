"""eth_: what a transaction should offer, and what recent ones paid."""

from collections.abc import Mapping, Sequence
from typing import Any

from core.block import Block, Header
from core.chain import SealedBlock
from core.chain_rules import blob_base_fee, excess_blob_gas_after, next_base_fee
from core.columns import int_from_limbs
from core.fork import BLOB_PARAMETERS, Fork
from sequencer.jsonrpc.errors import SERVER_ERROR, RpcError, invalid_params
from sequencer.jsonrpc.hexadecimal import HexError, quantity, read_quantity
from sequencer.jsonrpc.method import Json, Method, heavy, light
from sequencer.jsonrpc.parameters import BlockReference, Parameters
from sequencer.rpc_methods.services import Services

__all__ = ["FeeMethods", "effective_tips"]

_SAMPLED_BLOCKS = 20
_SAMPLE_PERCENT = 60
_TIP_DEFAULT_WEI = 10**6
_BLOB_GAS = 2**17


class FeeMethods:
    """Base fees, tips and their history."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def methods(self) -> Mapping[str, Method]:
        """Name to method."""
        return {
            "eth_gasPrice": light(self.gas_price),
            "eth_maxPriorityFeePerGas": light(self.max_priority_fee),
            "eth_baseFee": light(self.base_fee),
            "eth_blobBaseFee": light(self.blob_base_fee),
            "eth_feeHistory": heavy(self.fee_history),
        }

    def gas_price(self, parameters: Parameters) -> Json:
        parameters.at_most(0)
        return quantity(self._suggested_tip() + (self._head().base_fee_per_gas or 0))

    def max_priority_fee(self, parameters: Parameters) -> Json:
        parameters.at_most(0)
        return quantity(self._suggested_tip())

    def base_fee(self, parameters: Parameters) -> Json:
        """The next block's."""
        parameters.at_most(0)
        return quantity(next_base_fee(self._head()))

    def blob_base_fee(self, parameters: Parameters) -> Json:
        """The next block's."""
        parameters.at_most(0)
        head = self._head()
        fork = self._services.chain.config.fork_at(head.number + 1, head.timestamp)
        if fork < Fork.CANCUN:
            return quantity(0)
        return quantity(blob_base_fee(excess_blob_gas_after(head, fork), fork))

    def fee_history(self, parameters: Parameters) -> Json:
        parameters.at_most(3)
        count = parameters.read(0, _read_count)
        newest = self._newest(parameters.required_number(1))
        percentiles = self._percentiles(parameters)
        count = min(count, self._services.limits.fee_history_blocks_max, newest.number + 1)
        if count == 0:
            return {"oldestBlock": "0x0", "gasUsedRatio": []}
        blocks = [self._sealed(number) for number in range(newest.number + 1 - count, newest.number + 1)]
        headers = [sealed.block.header for sealed in blocks]
        body: dict[str, Json] = {
            "oldestBlock": quantity(headers[0].number),
            "baseFeePerGas": [quantity(header.base_fee_per_gas or 0) for header in headers]
            + [quantity(self._base_fee_after(headers[-1]))],
            "gasUsedRatio": [header.gas_used / header.gas_limit for header in headers],
            "baseFeePerBlobGas": [quantity(self._blob_fee(header)) for header in headers]
            + [quantity(self._blob_fee_after(headers[-1]))],
            "blobGasUsedRatio": [self._blob_ratio(header) for header in headers],
        }
        if percentiles:
            body["reward"] = [self._rewards(sealed, percentiles) for sealed in blocks]
        return body

    def _head(self) -> Header:
        return self._services.chain.head().block.header

    def _sealed(self, number: int) -> SealedBlock:
        sealed = self._services.chain.block(number)
        assert sealed is not None
        return sealed

    def _newest(self, reference: BlockReference) -> SealedBlock:
        head = self._services.chain.head()
        if reference.number is not None and reference.number > head.number:
            message = f"request beyond head block: requested {reference.number}, head {head.number}"
            raise RpcError(SERVER_ERROR, message)
        return self._services.view.need(reference)

    def _percentiles(self, parameters: Parameters) -> Sequence[float]:
        percentiles: list[float] = parameters.read_or(2, _read_numbers, [])
        if len(percentiles) > self._services.limits.reward_percentiles_max:
            limit = self._services.limits.reward_percentiles_max
            raise invalid_params(f"over the query limit {limit}: invalid reward percentile")
        for i, value in enumerate(percentiles):
            if not 0 <= value <= 100:
                raise RpcError(SERVER_ERROR, f"invalid reward percentile: {value:f}")
            if i and value <= percentiles[i - 1]:
                message = f"invalid reward percentile: #{i - 1}:{percentiles[i - 1]:f} >= #{i}:{value:f}"
                raise RpcError(SERVER_ERROR, message)
        return percentiles

    def _base_fee_after(self, header: Header) -> int:
        fork = self._services.chain.config.fork_at(header.number + 1, header.timestamp)
        return next_base_fee(header) if fork >= Fork.LONDON else 0

    def _blob_fee(self, header: Header) -> int:
        fork = self._services.chain.config.fork_at(header.number, header.timestamp)
        return 0 if header.excess_blob_gas is None else blob_base_fee(header.excess_blob_gas, fork)

    def _blob_fee_after(self, header: Header) -> int:
        fork = self._services.chain.config.fork_at(header.number + 1, header.timestamp)
        return blob_base_fee(excess_blob_gas_after(header, fork), fork) if fork >= Fork.CANCUN else 0

    def _blob_ratio(self, header: Header) -> float:
        blobs = BLOB_PARAMETERS.get(self._services.chain.config.fork_at(header.number, header.timestamp))
        return 0 if blobs is None else (header.blob_gas_used or 0) / (blobs.max_blobs * _BLOB_GAS)

    def _rewards(self, sealed: SealedBlock, percentiles: Sequence[float]) -> list[Json]:
        """Tips at each percentile of the block's gas."""
        used = self._services.chain.receipts(sealed.number).gas_used.tolist()
        ranked = sorted(zip(effective_tips(sealed.block), used, strict=True))
        if not ranked:
            return [quantity(0)] * len(percentiles)
        rewards: list[Json] = []
        position, total = 0, ranked[0][1]
        for percentile in percentiles:
            threshold = int(sealed.block.header.gas_used * percentile / 100)
            while total < threshold and position < len(ranked) - 1:
                position += 1
                total += ranked[position][1]
            rewards.append(quantity(max(0, ranked[position][0])))
        return rewards

    def _suggested_tip(self) -> int:
        """A tip that most of the recent blocks' transactions did not exceed."""
        head = self._services.chain.head()
        tips: list[int] = []
        for number in range(max(1, head.number + 1 - _SAMPLED_BLOCKS), head.number + 1):
            tips += effective_tips(self._sealed(number).block)
        if not tips:
            return _TIP_DEFAULT_WEI
        return max(1, sorted(tips)[(len(tips) - 1) * _SAMPLE_PERCENT // 100])


def effective_tips(block: Block) -> list[int]:
    """What each transaction of a block pays its producer, wei per gas."""
    base_fee = block.header.base_fee_per_gas or 0
    columns = block.transactions
    return [
        min(
            int_from_limbs(columns.max_fee_per_gas[row]) - base_fee,
            int_from_limbs(columns.max_priority_fee_per_gas[row]),
        )
        for row in range(len(columns))
    ]


def _read_count(value: Any) -> int:
    """A number of blocks: a quantity, or (as wallets send it) a decimal."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63:
        return value
    if isinstance(value, str) and value.isdecimal() and value.isascii() and len(value) < 20:
        return int(value)
    return read_quantity(value)


def _read_numbers(value: Any) -> list[float]:
    if not isinstance(value, list) or not all(
        isinstance(one, (int, float)) and not isinstance(one, bool) for one in value
    ):
        raise HexError("json: cannot unmarshal into Go value of type []float64")
    return value
