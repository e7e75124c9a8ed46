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
    "input_tokens_max",
    "next_price_wei",
]

UTILISATION_TARGET_PERMILLE = 500
PRICE_CHANGE_DENOMINATOR = 8

_TEMPLATE_TOKENS_MAX = 64  # what a chat template may add to each message, and once to all

assert 0 < UTILISATION_TARGET_PERMILLE < 1000


def input_tokens_max(request: JobRequest) -> int:
    """More tokens than any tokenizer makes of the request: one a byte, and the template's own."""
    content = sum(len(message.content.encode()) + _TEMPLATE_TOKENS_MAX for message in request.messages)
    return content + _TEMPLATE_TOKENS_MAX


def cost_wei(model: Model, input_tokens: int, output_tokens: int) -> int:
    """What this usage costs at a model's asked prices: a receipt's total."""
    return input_tokens * model.input_token_wei + output_tokens * model.output_token_wei


def cost_max_wei(model: Model, request: JobRequest) -> int:
    """What no answer to a request can cost more than: an escrow that holds it never refuses a receipt."""
    return cost_wei(model, input_tokens_max(request), request.sampling.tokens_max)


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
