"""WorkerRegistry: stake, keys, leaving, slashing."""

import pytest

from market.contracts import REGISTRY_ADDRESS
from tests.unit.market.ledger import ETHER, Reverted, address_of
from tests.unit.market.scene import FUNDED_WEI, PARAMETERS, Scene, binding_of, identity_of

FOREVER = 2**64 - 1
WORKER = address_of("worker")


@pytest.fixture
def scene() -> Scene:
    return Scene()


def bonded_until(scene: Scene, worker: str = "worker") -> int:
    until: int = scene.ledger.read(REGISTRY_ADDRESS, "bondedUntil", address_of(worker))
    return until


def refusal(scene: Scene, sender: str, function: str, *arguments: object, value: int = 0) -> str | None:
    with pytest.raises(Reverted) as refused:
        scene.registry(sender, function, *arguments, value=value)
    return refused.value.name


def test_a_registered_worker_is_bonded_and_listed(scene: Scene) -> None:
    assert bonded_until(scene) == FOREVER
    assert scene.ledger.read(REGISTRY_ADDRESS, "signerOf", WORKER) == address_of("worker signer")
    assert scene.ledger.read(REGISTRY_ADDRESS, "workerOf", WORKER) == (2 * ETHER, 0, identity_of("worker"))
    assert scene.ledger.read(REGISTRY_ADDRESS, "workers", 0, 10) == (WORKER, address_of("second worker"))
    assert scene.ledger.read(REGISTRY_ADDRESS, "workers", 1, 1) == (address_of("second worker"),)
    assert scene.ledger.balance(REGISTRY_ADDRESS) == 4 * ETHER
    assert bonded_until(scene, "client") == 0


def test_registration_is_refused(scene: Scene) -> None:
    identity, binding = identity_of("client"), binding_of("client", "client signer")
    register = ("client", "register")
    assert refusal(scene, *register, identity, binding, value=PARAMETERS.stake_min_wei - 1) == "StakeTooSmall"
    assert refusal(scene, *register, identity, binding_of("worker", "client signer"), value=ETHER) == "SignerNotProven"
    assert refusal(scene, *register, identity, b"", value=ETHER) == "SignerNotProven"
    taken = binding_of("client", "worker signer")
    assert refusal(scene, *register, identity_of("worker"), taken, value=ETHER) == "SignerTaken"
    assert refusal(scene, *register, identity_of("client", "x" * 257), binding, value=ETHER) == "EndpointTooLong"
    assert refusal(scene, "worker", "register", identity, binding, value=ETHER) == "AlreadyRegistered"
    assert scene.registry("client", "register", identity_of("client", "x" * 256), binding, value=ETHER).event(
        "Registered"
    )


def test_a_new_key_replaces_the_old_one(scene: Scene) -> None:
    scene.registry("worker", "changeIdentity", identity_of("client"), binding_of("worker", "client signer"))
    assert scene.ledger.read(REGISTRY_ADDRESS, "signerOf", WORKER) == address_of("client signer")
    assert scene.ledger.read(REGISTRY_ADDRESS, "workerOfSigner", address_of("worker signer")) == bytes(20)
    assert refusal(scene, "client", "changeIdentity", identity_of("client"), b"") == "NotRegistered"


def test_leaving_takes_its_time_and_returns_the_stake(scene: Scene) -> None:
    assert refusal(scene, "worker", "finishUnbonding") == "NotUnbonding"
    scene.registry("worker", "beginUnbonding")
    leaves_at = scene.ledger.now + PARAMETERS.unbonding_seconds
    assert bonded_until(scene) == leaves_at
    assert refusal(scene, "worker", "beginUnbonding") == "AlreadyUnbonding"
    scene.ledger.now = leaves_at - 1
    assert refusal(scene, "worker", "finishUnbonding") == "StillBonded"
    scene.ledger.now = leaves_at
    scene.registry("worker", "finishUnbonding")
    assert (bonded_until(scene), scene.credit("worker", REGISTRY_ADDRESS)) == (0, 2 * ETHER)
    scene.registry("worker", "withdraw", WORKER, 2 * ETHER)
    assert scene.ledger.balance(WORKER) == FUNDED_WEI
    assert refusal(scene, "worker", "withdraw", WORKER, 1) == "CreditTooSmall"
    scene.register("worker")
    assert bonded_until(scene) == FOREVER


def test_a_worker_may_stay_after_all(scene: Scene) -> None:
    assert refusal(scene, "worker", "cancelUnbonding") == "NotUnbonding"
    scene.registry("worker", "beginUnbonding")
    scene.registry("worker", "cancelUnbonding")
    assert bonded_until(scene) == FOREVER


def test_slashing_pays_the_finder_half_and_burns_half(scene: Scene) -> None:
    finder = address_of("finder")
    assert refusal(scene, "client", "slash", WORKER, ETHER, finder) == "NotSlasher"
    assert refusal(scene, "arbiter", "slash", WORKER, ETHER, bytes(20)) == "FinderMissing"
    slashed = scene.registry("arbiter", "slash", WORKER, ETHER + 1, finder)
    assert slashed.result == ETHER + 1
    assert scene.credit("finder", REGISTRY_ADDRESS) == ETHER // 2
    assert scene.ledger.read(REGISTRY_ADDRESS, "burnedWei") == ETHER // 2 + 1
    assert bonded_until(scene) == 0, "less stake than the minimum"
    assert scene.registry("arbiter", "slash", WORKER, 5 * ETHER, finder).result == ETHER - 1
    assert scene.registry("arbiter", "slash", WORKER, 5 * ETHER, finder).result == 0
    scene.registry("client", "addStake", WORKER, value=ETHER)
    assert bonded_until(scene) == FOREVER


def test_an_unbonding_stake_can_still_be_slashed(scene: Scene) -> None:
    scene.registry("worker", "beginUnbonding")
    scene.ledger.now += PARAMETERS.unbonding_seconds
    assert scene.registry("arbiter", "slash", WORKER, ETHER, address_of("finder")).result == ETHER
    scene.registry("worker", "finishUnbonding")
    assert scene.credit("worker", REGISTRY_ADDRESS) == ETHER


def test_money_cannot_be_lost_by_sending_it(scene: Scene) -> None:
    assert refusal(scene, "client", "addStake", address_of("client"), value=1) == "NotRegistered"
    assert refusal(scene, "worker", "beginUnbonding", value=1) is None, "not payable"
