"""What a job costs and how prices move: integers, wei a token.

Knows nothing of who works or who pays. A price that follows utilisation is EIP-1559's rule on busy slots.
"""

from core.jobs.request import JobRequest
from protos.messages import Model

__all__ = [
    "PRICE_CHANGE_DENOMINATOR",
    "UTILISATION_TARGET_PERMILLE",
    "cost_max_wei",
    "cost_wei",
    "input_tokens_estimate",
    "next_price_wei",
]

UTILISATION_TARGET_PERMILLE = 500
PRICE_CHANGE_DENOMINATOR = 8

_BYTES_PER_TOKEN = 3  # English has 4; fewer err on the side of asking for too much
_TEMPLATE_TOKENS = 16  # what a chat template adds around each message

assert 0 < UTILISATION_TARGET_PERMILLE < 1000


def input_tokens_estimate(request: JobRequest) -> int:
    """How many tokens a request's prompt may have; only its worker's tokenizer can tell exactly."""
    return sum(len(one.content.encode()) // _BYTES_PER_TOKEN + _TEMPLATE_TOKENS for one in request.messages)


def cost_wei(model: Model, input_tokens: int, output_tokens: int) -> int:
    """What this usage costs at a model's asked prices: a receipt's total."""
    return input_tokens * model.input_token_wei + output_tokens * model.output_token_wei


def cost_max_wei(model: Model, request: JobRequest) -> int:
    """What a request can cost if its answer is as long as it may be: what an escrow should hold."""
    return cost_wei(model, input_tokens_estimate(request), request.sampling.tokens_max)


def next_price_wei(price_wei: int, *, busy_slots: int, slots: int, floor_wei: int) -> int:
    """The price after an interval in which `busy_slots` of `slots` were in use.

    P' = P + P (u - u*) / (8 u*), with u* one half: at most one eighth up or down, and at least 1 wei up when demand is
    above target, so that a price of a few wei can move. Never below the lowest live ask, `floor_wei`.
    """
    assert 0 <= busy_slots <= slots, "more slots are busy than there are"
    if slots == 0:
        return max(price_wei, floor_wei)
    excess = busy_slots * 1000 - slots * UTILISATION_TARGET_PERMILLE
    step = price_wei * abs(excess) // (slots * UTILISATION_TARGET_PERMILLE * PRICE_CHANGE_DENOMINATOR)
    moved = price_wei + max(step, 1) if excess > 0 else price_wei - step
    return max(moved, floor_wei)
