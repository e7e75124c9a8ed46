"""The reference executor beyond what the conformance vectors check: calls, refusals, access lists, isolation."""

from dataclasses import replace
from typing import Any

import pytest

from core.errors import BlockError
from core.execution import BlockContext, CallRequest, Halt, RejectionReason
from core.fork import Fork
from core.hashing import keccak256
from core.memory_state import AccountContents, MemoryState
from core.state import EMPTY_ACCOUNT
from core.transaction import AccessListEntry, Transaction, TransactionColumns, TransactionType
from tests.differential.assembler import assemble, create_code
from worker.evm.reference import ReferenceExecutor

ALICE, BOB, CONTRACT, OTHER, COINBASE = (bytes([n]) * 20 for n in (0xA1, 0xB0, 0xC0, 0xC1, 0xCB))
ETHER = 10**18
EXECUTOR = ReferenceExecutor()
CONTEXT = BlockContext(
    fork=Fork.OSAKA,
    chain_id=7,
    number=5,
    timestamp=100,
    gas_limit=30_000_000,
    coinbase=COINBASE,
    base_fee_per_gas=10,
    block_hashes=tuple(keccak256(bytes([n])) for n in range(5)),
)


def state_with(code: bytes = b"", **accounts: AccountContents) -> MemoryState:
    contents = {ALICE: AccountContents(balance=ETHER), CONTRACT: AccountContents(1, 0, code, {1: 11})}
    return MemoryState(contents | {bytes.fromhex(name[1:]): one for name, one in accounts.items()})


def transfer(**changes: Any) -> Transaction:
    tx = Transaction(TransactionType.FEE_MARKET, 7, 0, 21_000, 20, 1, BOB, 5, b"", 0, 1, 1)
    return replace(tx, **changes)


def columns(*transactions: Transaction, sender: bytes = ALICE) -> TransactionColumns:
    return TransactionColumns.from_transactions(transactions, [sender] * len(transactions))


def call(state: MemoryState, context: BlockContext = CONTEXT, **fields: Any) -> Any:
    return EXECUTOR.call(
        state, context, CallRequest(**{"sender": ALICE, "to": CONTRACT, "gas_limit": 100_000} | fields)
    )


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"nonce": 1}, RejectionReason.NONCE_TOO_HIGH),
        ({"nonce": 2**64 - 1}, RejectionReason.NONCE_OVERFLOW),
        ({"gas_limit": 20_999}, RejectionReason.INTRINSIC_GAS),
        ({"data": b"\xff" * 100, "gas_limit": 23_000}, RejectionReason.FLOOR_GAS),
        ({"gas_limit": 2**24 + 1}, RejectionReason.TRANSACTION_GAS_LIMIT),
        ({"max_fee_per_gas": 9}, RejectionReason.FEE_BELOW_BASE_FEE),
        ({"max_priority_fee_per_gas": 21}, RejectionReason.PRIORITY_FEE_ABOVE_MAX_FEE),
        ({"value": ETHER}, RejectionReason.INSUFFICIENT_FUNDS),
        ({"chain_id": 8}, RejectionReason.CHAIN_ID_MISMATCH),
        ({"to": None, "data": bytes(49_153), "gas_limit": 10_000_000}, RejectionReason.INITCODE_TOO_LARGE),
        ({"type": TransactionType.SET_CODE}, RejectionReason.AUTHORIZATION_LIST_EMPTY),
        ({"type": TransactionType.BLOB}, RejectionReason.BLOB_COUNT),
        (
            {"type": TransactionType.BLOB, "blob_versioned_hashes": (b"\2" * 32,)},
            RejectionReason.BLOB_HASH_VERSION,
        ),
        (
            {"type": TransactionType.BLOB, "blob_versioned_hashes": (b"\1" * 32,)},
            RejectionReason.BLOB_FEE_TOO_LOW,
        ),
        (
            {"type": TransactionType.LEGACY, "max_fee_per_gas": 9, "max_priority_fee_per_gas": 9},
            RejectionReason.FEE_BELOW_BASE_FEE,
        ),
    ],
)
def test_a_refused_transaction_leaves_no_trace(changes: dict[str, Any], reason: RejectionReason) -> None:
    state = state_with()
    outcome = EXECUTOR.execute_transactions(state, CONTEXT, columns(transfer(**changes)))
    assert [one.reason for one in outcome.rejections] == [reason]
    assert outcome.rejections[0].detail
    assert (len(outcome.included), len(outcome.difference), outcome.gas_used) == (0, 0, 0)
    # Those after it see the state without it.
    both = EXECUTOR.execute_transactions(state, CONTEXT, columns(transfer(**changes), transfer()))
    alone = EXECUTOR.execute_transactions(state, CONTEXT, columns(transfer()))
    assert both.included.tolist() == [1]
    assert (both.difference, both.receipts) == (alone.difference, alone.receipts)


def test_refusals_that_depend_on_state_and_block() -> None:
    run = EXECUTOR.execute_transactions
    used = MemoryState({ALICE: AccountContents(nonce=3, balance=ETHER)})
    assert run(used, CONTEXT, columns(transfer(nonce=2))).rejections[0].reason == RejectionReason.NONCE_TOO_LOW
    small = replace(CONTEXT, gas_limit=30_000)
    two = run(state_with(), small, columns(transfer(), transfer(nonce=1)))
    assert [(one.index, one.reason) for one in two.rejections] == [(1, RejectionReason.BLOCK_GAS_LIMIT)]
    coded = MemoryState({ALICE: AccountContents(balance=ETHER, code=b"\0")})
    assert run(coded, CONTEXT, columns(transfer())).rejections[0].reason == RejectionReason.SENDER_NOT_EOA
    london = replace(CONTEXT, fork=Fork.SHANGHAI)
    blob = transfer(type=TransactionType.BLOB)
    assert run(state_with(), london, columns(blob)).rejections[0].reason == RejectionReason.TYPE_NOT_SUPPORTED


def test_fees_and_difference_of_a_transfer() -> None:
    outcome = EXECUTOR.execute_transactions(state_with(), CONTEXT, columns(transfer()))
    after = state_with().apply(outcome.difference).accounts
    assert after[ALICE] == AccountContents(1, ETHER - 5 - 21_000 * 11)
    assert after[BOB].balance == 5
    assert after[COINBASE].balance == 21_000
    assert outcome.gas_used == 21_000
    assert len(outcome.difference) == 3


def test_writing_back_what_was_there_is_no_change() -> None:
    code = assemble(5, 1, "SSTORE", 11, 1, "SSTORE", 9, 2, "SSTORE", 0, 2, "SSTORE", 6, 3, "SSTORE")
    outcome = EXECUTOR.execute_transactions(
        state_with(code), CONTEXT, columns(transfer(to=CONTRACT, value=0, gas_limit=200_000))
    )
    changes = dict(outcome.difference.changes())
    assert changes[CONTRACT].storage == {3: 6}
    assert not changes[CONTRACT].storage_cleared


def test_a_contract_destroyed_in_its_own_transaction_leaves_nothing() -> None:
    init = assemble(7, 1, "SSTORE", push_address(BOB), "SELFDESTRUCT")
    outcome = EXECUTOR.execute_transactions(
        state_with(), CONTEXT, columns(transfer(to=None, data=init, value=3, gas_limit=200_000))
    )
    changes = dict(outcome.difference.changes())
    assert outcome.receipts.succeeded.tolist() == [1]
    assert set(changes) == {ALICE, BOB, COINBASE}


def test_before_cancun_selfdestruct_clears_stored_slots_for_good() -> None:
    shanghai = replace(CONTEXT, fork=Fork.SHANGHAI)
    code = assemble(push_address(BOB), "SELFDESTRUCT")
    tx = transfer(to=CONTRACT, value=0, gas_limit=100_000)
    outcome = EXECUTOR.execute_transactions(state_with(code), shanghai, columns(tx, replace(tx, nonce=1, value=2)))
    change = dict(outcome.difference.changes())[CONTRACT]
    assert change.storage_cleared
    assert change.account is not None
    assert change.account.balance == 2
    assert state_with(code).apply(outcome.difference).storage(CONTRACT, 1) == 0


def push_address(address: bytes) -> bytes:
    return bytes([0x73]) + address


def test_call_returns_data_and_charges_nothing() -> None:
    code = assemble(1, "SLOAD BASEFEE ADD", 0, "MSTORE", 32, 0, "RETURN")
    result = call(state_with(code))
    assert (result.succeeded, int.from_bytes(result.output, "big")) == (True, 11)
    assert result.rejection is None
    changes = dict(result.difference.changes())
    assert set(changes) == {ALICE}
    assert changes[ALICE].account == replace(EMPTY_ACCOUNT, nonce=1, balance=ETHER)


def test_call_that_offers_a_fee_pays_and_sees_the_base_fee() -> None:
    code = assemble("BASEFEE", 0, "MSTORE", 32, 0, "RETURN")
    result = call(state_with(code), max_fee_per_gas=12, max_priority_fee_per_gas=2)
    assert int.from_bytes(result.output, "big") == 10
    after = state_with(code).apply(result.difference)
    assert after.accounts[COINBASE].balance == 2 * result.gas_used
    assert after.accounts[ALICE].balance == ETHER - 12 * result.gas_used
    assert call(state_with(code), max_fee_per_gas=9).rejection.reason == RejectionReason.FEE_BELOW_BASE_FEE


@pytest.mark.parametrize(
    ("code", "halt", "output"),
    [
        (assemble(0xABCD, 0, "MSTORE", 2, 30, "REVERT"), Halt.REVERT, b"\xab\xcd"),
        (assemble("INVALID"), Halt.INVALID_OPCODE, b""),
        (assemble("ADD"), Halt.STACK_UNDERFLOW, b""),
        (assemble(3, "JUMP"), Halt.INVALID_JUMP, b""),
        (assemble("JUMPDEST", 0, "JUMP"), Halt.OUT_OF_GAS, b""),
        (assemble(1, 0, 0, "RETURNDATACOPY"), Halt.RETURN_DATA_BOUNDS, b""),
        (assemble("JUMPDEST GAS PUSH0 JUMP"), Halt.STACK_OVERFLOW, b""),
    ],
)
def test_how_a_call_ends(code: bytes, halt: Halt, output: bytes) -> None:
    result = call(state_with(code))
    assert (result.succeeded, result.halt, result.output) == (False, halt, output)
    assert (result.gas_used == 100_000) == (halt != Halt.REVERT)


def test_creation_by_call_returns_the_deployed_code() -> None:
    result = call(state_with(), to=None, data=create_code(b"\x5b" * 40))
    assert (result.succeeded, result.output) == (True, b"\x5b" * 40)
    refused = call(state_with(), to=None, data=assemble(0xEF, 0, "MSTORE8", 1, 0, "RETURN"))
    assert refused.halt == Halt.INVALID_CODE


def test_call_ignores_what_only_a_signed_transaction_must_satisfy() -> None:
    code = assemble("GASLIMIT", 0, "MSTORE", 32, 0, "RETURN")
    state = MemoryState({CONTRACT: AccountContents(1, 0, code)})
    poor = call(state, sender=CONTRACT, nonce=77, gas_limit=2**40)
    assert (poor.succeeded, int.from_bytes(poor.output, "big")) == (True, CONTEXT.gas_limit)
    assert call(state, value=1).rejection.reason == RejectionReason.INSUFFICIENT_FUNDS
    assert call(state, validate=True, max_fee_per_gas=10).rejection.reason == RejectionReason.INSUFFICIENT_FUNDS


def test_validated_call_is_a_transaction() -> None:
    tx = transfer(to=CONTRACT, value=0, gas_limit=60_000)
    state = state_with(assemble(3, 2, "SSTORE"))
    executed = EXECUTOR.execute_transactions(state, CONTEXT, columns(tx))
    result = call(state, gas_limit=60_000, nonce=0, max_fee_per_gas=20, max_priority_fee_per_gas=1, validate=True)
    assert (result.difference, result.gas_used) == (executed.difference, executed.gas_used)
    late = call(state, nonce=1, max_fee_per_gas=20, validate=True)
    assert late.rejection.reason == RejectionReason.NONCE_TOO_HIGH


def test_nonce_of_an_unvalidated_call_wraps() -> None:
    state = MemoryState({ALICE: AccountContents(nonce=2**64 - 1, balance=1)})
    result = call(state, to=BOB)
    changes = dict(result.difference.changes())
    assert result.succeeded
    assert changes[ALICE].account == replace(EMPTY_ACCOUNT, nonce=0, balance=1)
    assert call(state, to=None).rejection.reason == RejectionReason.NONCE_OVERFLOW


def test_accesses_include_those_of_reverted_messages() -> None:
    inner = assemble(9, "SLOAD", 0, 0, "REVERT")
    code = assemble(0, 0, 0, 0, push_address(OTHER), "GAS STATICCALL", 1, "SLOAD", push_address(BOB), "BALANCE STOP")
    state = state_with(code, **{"x" + OTHER.hex(): AccountContents(1, 0, inner)})
    result = call(state)
    assert result.accessed == (
        AccessListEntry(BOB, ()),
        AccessListEntry(CONTRACT, (bytes(31) + b"\1",)),
        AccessListEntry(OTHER, (bytes(31) + b"\x09",)),
    )
    cheaper = call(state, access_list=result.accessed)
    assert cheaper.accessed == result.accessed


def test_refund_is_told_and_bounded() -> None:
    result = call(state_with(assemble(0, 1, "SSTORE")))
    assert result.gas_refunded == 4_800
    assert result.gas_used + result.gas_refunded == 21_000 + 2 + 3 + 5_000


def test_block_steps_need_their_contracts() -> None:
    with pytest.raises(BlockError, match="does not contain code"):
        EXECUTOR.execute_block(state_with(), CONTEXT, columns(transfer()))
    cancun = EXECUTOR.execute_block(state_with(), replace(CONTEXT, fork=Fork.CANCUN), columns(transfer()))
    assert cancun.receipts.gas_used.tolist() == [21_000]


def test_simulated_precompiles_and_blob_fee() -> None:
    code = assemble(
        0x2A,
        0,
        "MSTORE",
        32,
        32,
        32,
        0,
        0xF00,
        "GAS STATICCALL",
        0,
        "MSTORE BLOBBASEFEE",
        64,
        "MSTORE",
        96,
        0,
        "RETURN",
    )
    identity, moved = bytes(19) + b"\4", bytes(18) + b"\x0f\x00"
    bent = replace(CONTEXT, blob_base_fee_override=123, precompile_moves=((identity, moved),))
    words = [int.from_bytes(call(state_with(code), bent).output[i : i + 32], "big") for i in (0, 32, 64)]
    assert words == [1, 0x2A, 123]
    gone = assemble(0x2A, 0, "MSTORE", 32, 32, 32, 0, 4, "GAS STATICCALL", 96, 0, "RETURN")
    removed = replace(CONTEXT, precompile_moves=((identity, None),))
    assert call(state_with(gone), removed).output[32:64] == bytes(32)
    assert int.from_bytes(call(state_with(gone)).output[32:64], "big") == 0x2A
