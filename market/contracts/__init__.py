"""The market's contracts: where they stand, what genesis gives them, and their interfaces.

They are predeployed: no deployment transaction, no owner. Their parameters are genesis storage.
"""

from dataclasses import dataclass
from pathlib import Path

from core.contract import load_artifact
from core.genesis import Predeploy

__all__ = [
    "ESCROW_ADDRESS",
    "JOB_ESCROW",
    "REGISTRY_ADDRESS",
    "SETTLE_RECEIPTS_MAX",
    "WORKER_REGISTRY",
    "MarketParameters",
    "predeploys",
]

# "WG" in ASCII, then a number: short enough to recognise in a trace, and no key's address.
REGISTRY_ADDRESS = bytes.fromhex("5747000000000000000000000000000000000001")
ESCROW_ADDRESS = bytes.fromhex("5747000000000000000000000000000000000002")

# JobEscrow's constant: most receipts in one call of `settle`.
SETTLE_RECEIPTS_MAX = 128

_ARTIFACTS = Path(__file__).parent / "artifacts"
WORKER_REGISTRY = load_artifact(_ARTIFACTS / "WorkerRegistry.json")
JOB_ESCROW = load_artifact(_ARTIFACTS / "JobEscrow.json")


@dataclass(frozen=True, slots=True)
class MarketParameters:
    """What a chain's genesis fixes for its market.

    `arbiter` (20 bytes) judges evidence: an account on a testnet, a dispute contract elsewhere. `challenge_seconds`
    runs from a receipt's acceptance to its payment, `settlement_seconds` from a job's deadline to its expiry,
    `unbonding_seconds` from a worker's wish to leave to the release of its stake, which is at least `stake_min_wei`.
    A rejected receipt costs its worker `penalty_multiple` times the job's maximum price.
    """

    arbiter: bytes
    stake_min_wei: int
    challenge_seconds: int
    settlement_seconds: int
    unbonding_seconds: int
    penalty_multiple: int = 10

    def __post_init__(self) -> None:
        assert len(self.arbiter) == 20, "the arbiter is an address"
        assert self.stake_min_wei > 0, "a worker without stake has nothing to lose"
        assert self.unbonding_seconds > self.challenge_seconds, "stake must outlast the challenge of the last receipt"


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
            "settlementSeconds": parameters.settlement_seconds,
            "penaltyMultiple": parameters.penalty_multiple,
        }
    )
    return {
        REGISTRY_ADDRESS: Predeploy(WORKER_REGISTRY.deployed_code, registry),
        ESCROW_ADDRESS: Predeploy(JOB_ESCROW.deployed_code, escrow),
    }
