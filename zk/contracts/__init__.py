"""The contracts of disputes: where they stand and what genesis gives them. They are predeployed and have no owner."""

from pathlib import Path

from core.contract import load_artifact
from core.genesis import Predeploy
from zk.dispute import table_code

__all__ = ["DISPUTE", "DISPUTE_ADDRESS", "EXP2_ADDRESS", "SIGMOID_ADDRESS", "STEPS", "STEPS_ADDRESS", "predeploys"]

DISPUTE_ADDRESS = bytes.fromhex("5747000000000000000000000000000000000010")
STEPS_ADDRESS = bytes.fromhex("5747000000000000000000000000000000000011")
EXP2_ADDRESS = bytes.fromhex("5747000000000000000000000000000000000012")
SIGMOID_ADDRESS = bytes.fromhex("5747000000000000000000000000000000000013")

_ARTIFACTS = Path(__file__).parent / "artifacts"
DISPUTE = load_artifact(_ARTIFACTS / "Dispute.json")
STEPS = load_artifact(_ARTIFACTS / "Steps.json")


def predeploys(exp2: list[int], sigmoid: list[int], move_seconds: int) -> dict[bytes, Predeploy]:
    """Disputes' part of a genesis block, by address: the two tables of the specification, and seconds for a move."""
    assert move_seconds > 0, "a clock that never runs protects a silent party"
    return {
        DISPUTE_ADDRESS: Predeploy(DISPUTE.deployed_code, DISPUTE.encode_storage({"moveSeconds": move_seconds})),
        STEPS_ADDRESS: Predeploy(STEPS.deployed_code, {}),
        EXP2_ADDRESS: Predeploy(table_code(exp2), {}),
        SIGMOID_ADDRESS: Predeploy(table_code(sigmoid), {}),
    }
