"""The market's contracts: where they stand, what genesis gives them, and their interfaces.

They are predeployed: no deployment transaction, no owner. Their parameters are genesis storage.
"""

from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from core.contract import load_artifact
from core.genesis import Predeploy
from zk.contracts import DISPUTE_ADDRESS

__all__ = [
    "ARBITER",
    "ARBITER_ADDRESS",
    "ESCROW_ADDRESS",
    "JOB_ESCROW",
    "REGISTRY_ADDRESS",
    "SETTLE_RECEIPTS_MAX",
    "WORKER_REGISTRY",
    "EscrowStatus",
    "MarketParameters",
    "predeploys",
]

# "WG" in ASCII, then a number: short enough to recognise in a trace, and no key's address.
REGISTRY_ADDRESS = bytes.fromhex("5747000000000000000000000000000000000001")
ESCROW_ADDRESS = bytes.fromhex("5747000000000000000000000000000000000002")
ARBITER_ADDRESS = bytes.fromhex("5747000000000000000000000000000000000003")

# JobEscrow's constant: most receipts in one call of `settle`; of `settleBatch`, `market.batches` has it.
SETTLE_RECEIPTS_MAX = 128

_ARTIFACTS = Path(__file__).parent / "artifacts"
WORKER_REGISTRY = load_artifact(_ARTIFACTS / "WorkerRegistry.json")
JOB_ESCROW = load_artifact(_ARTIFACTS / "JobEscrow.json")
ARBITER = load_artifact(_ARTIFACTS / "Arbiter.json")


class EscrowStatus(IntEnum):
    """JobEscrow.Status."""

    UNKNOWN = 0
    FUNDED = 1
    SETTLING = 2
    PAID = 3
    REFUNDED = 4
    EXPIRED = 5
    REJECTED = 6
    DEMANDED = 7


@dataclass(frozen=True, slots=True)
class MarketParameters:
    """What a chain's genesis fixes for its market.

    `arbiter` (20 bytes) may reject receipts: the Arbiter contract, which lets anyone dispute exact answers against a
    bond of `bond_wei`, and `judge` (an account, or zeros for nobody) reject float ones; or an account.
    `challenge_seconds` runs from a float receipt's acceptance to its payment, `exact_challenge_seconds` from an exact
    one's, `settlement_seconds` from a job's deadline to its expiry, `unbonding_seconds` from a worker's wish to leave
    to the release of its stake, which is at least `stake_min_wei`. A rejected receipt costs its worker
    `penalty_multiple` times the job's maximum price.
    """

    stake_min_wei: int
    challenge_seconds: int
    exact_challenge_seconds: int
    settlement_seconds: int
    unbonding_seconds: int
    penalty_multiple: int = 10
    arbiter: bytes = ARBITER_ADDRESS
    judge: bytes = bytes(20)
    bond_wei: int = 10**17

    def __post_init__(self) -> None:
        assert len(self.arbiter) == len(self.judge) == 20, "arbiter and judge are addresses"
        assert self.stake_min_wei > 0, "a worker without stake has nothing to lose"
        window_seconds = max(self.challenge_seconds, self.exact_challenge_seconds)
        assert self.unbonding_seconds > window_seconds, "stake must outlast the challenge of the last receipt"


def predeploys(parameters: MarketParameters) -> dict[bytes, Predeploy]:
    """The market's part of a genesis block, by address."""
    registry = WORKER_REGISTRY.encode_storage(
        {
            "escrow": ESCROW_ADDRESS,
            "arbiter": parameters.arbiter,
            "stakeMinWei": parameters.stake_min_wei,
            "unbondingSeconds": parameters.unbonding_seconds,
        }
    )
    escrow = JOB_ESCROW.encode_storage(
        {
            "registry": REGISTRY_ADDRESS,
            "arbiter": parameters.arbiter,
            "challengeSeconds": parameters.challenge_seconds,
            "exactChallengeSeconds": parameters.exact_challenge_seconds,
            "settlementSeconds": parameters.settlement_seconds,
            "penaltyMultiple": parameters.penalty_multiple,
        }
    )
    arbiter = ARBITER.encode_storage(
        {
            "escrow": ESCROW_ADDRESS,
            "dispute": DISPUTE_ADDRESS,
            "judge": parameters.judge,
            "bondWei": parameters.bond_wei,
        }
    )
    return {
        REGISTRY_ADDRESS: Predeploy(WORKER_REGISTRY.deployed_code, registry),
        ESCROW_ADDRESS: Predeploy(JOB_ESCROW.deployed_code, escrow),
        ARBITER_ADDRESS: Predeploy(ARBITER.deployed_code, arbiter),
    }
