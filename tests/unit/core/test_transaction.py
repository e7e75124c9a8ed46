"""Transactions: canonical bytes, signing hashes, signatures, static rules."""

from dataclasses import replace

import pytest
from eth_account import Account as Wallet
from ethereum.forks.osaka import transactions as eels
from hypothesis import given
from hypothesis import strategies as st

from core import rlp
from core.errors import TransactionError
from core.execution import RejectionReason
from core.fork import Fork
from core.gas import TRANSACTION_GAS_MAX, floor_gas, intrinsic_gas, static_violation
from core.signature import recover_authority, recover_sender, recover_senders
from core.transaction import (
    Authorization,
    Transaction,
    TransactionType,
    decode_transaction,
    encode_transaction,
    transaction_hash,
)
from tests.unit.core.strategies import transactions

WALLET = Wallet.from_key("0x" + "42" * 32)
TO = "0x" + "11" * 20
BASE = {"nonce": 7, "gas": 100_000, "to": TO, "value": 5, "data": "0x00ff", "chainId": 1337}
FEES = {"maxFeePerGas": 9, "maxPriorityFeePerGas": 2}
ACCESS = [{"address": TO, "storageKeys": ["0x" + "22" * 32]}]


def signed(**fields: object) -> bytes:
    return bytes(WALLET.sign_transaction({**BASE, **fields}).raw_transaction)


def signed_set_code() -> bytes:
    authorization = WALLET.sign_authorization({"chainId": 1337, "address": TO, "nonce": 8})
    return signed(type=4, **FEES, accessList=ACCESS, authorizationList=[authorization])


@pytest.mark.parametrize(
    "raw",
    [
        signed(gasPrice=9),
        signed(type=1, gasPrice=9, accessList=ACCESS),
        signed(type=2, **FEES, accessList=ACCESS),
        signed_set_code(),
    ],
)
def test_a_wallets_transaction(raw: bytes) -> None:
    tx = decode_transaction(raw)
    assert (tx.nonce, tx.gas_limit, tx.max_fee_per_gas, tx.value, tx.data, tx.chain_id) == (
        7,
        100_000,
        9,
        5,
        b"\0\xff",
        1337,
    )
    assert encode_transaction(tx) == raw
    assert recover_sender(tx) == bytes.fromhex(WALLET.address[2:])
    assert static_violation(tx, Fork.OSAKA, 1337) is None
    for one in tx.authorizations:
        assert recover_authority(one) == bytes.fromhex(WALLET.address[2:])


@given(transactions)
def test_bytes_and_back(tx: Transaction) -> None:
    raw = encode_transaction(tx)
    assert decode_transaction(raw) == tx
    assert transaction_hash(decode_transaction(raw)) == transaction_hash(tx)


@given(transactions, st.data())
def test_changed_bytes_are_refused_or_mean_one_transaction(tx: Transaction, data: st.DataObject) -> None:
    raw = bytearray(encode_transaction(tx))
    raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        again = decode_transaction(bytes(raw))
    except TransactionError:
        return
    assert encode_transaction(again) == bytes(raw)


@given(st.binary(max_size=200))
def test_noise(raw: bytes) -> None:
    try:
        tx = decode_transaction(raw)
    except TransactionError:
        return
    assert encode_transaction(tx) == raw


@given(transactions)
def test_gas_is_the_specifications(tx: Transaction) -> None:
    intrinsic, floor = eels.calculate_intrinsic_cost(_eels(tx))
    assert intrinsic_gas(tx, Fork.OSAKA) == int(intrinsic)
    assert floor_gas(tx, Fork.OSAKA) == int(floor)


def _eels(tx: Transaction) -> eels.Transaction:
    raw = encode_transaction(tx)
    return eels.decode_transaction(raw) if tx.type else eels.decode_transaction(rlp_legacy(raw))


def rlp_legacy(raw: bytes) -> eels.LegacyTransaction:
    """EELS takes a legacy transaction as an object."""
    from_rlp = eels.rlp.decode_to(eels.LegacyTransaction, raw)
    assert rlp.encode(rlp.decode(raw)) == raw
    return from_rlp


def test_no_second_signature_means_the_same() -> None:
    tx = decode_transaction(signed(type=2, **FEES))
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    with pytest.raises(TransactionError, match="upper half"):
        recover_sender(replace(tx, s=order - tx.s, y_parity=1 - tx.y_parity))
    for wrong in ({"r": 0}, {"r": order}, {"s": 0}, {"s": order}):
        with pytest.raises(TransactionError, match="out of range"):
            recover_sender(replace(tx, **wrong))
    with pytest.raises(TransactionError, match="transaction 1: "):
        recover_senders([tx, replace(tx, r=0)])


def test_a_batch_recovers_what_coincurve_does_and_names_the_first_bad_one() -> None:
    batch = [decode_transaction(signed(type=2, **{**FEES, "nonce": nonce})) for nonce in range(20)]
    assert recover_senders(batch) == [recover_sender(tx) for tx in batch]
    assert recover_senders([]) == []
    off_curve = replace(batch[3], r=5)  # 5^3 + 7 has no square root
    with pytest.raises(TransactionError, match="matches no public key"):
        recover_sender(off_curve)
    for bad, index in (
        ({7: off_curve}, 7),
        ({9: replace(batch[9], s=0), 4: off_curve}, 4),
        ({2: replace(PLAIN, r=0)}, 2),
    ):
        with pytest.raises(TransactionError, match=f"^transaction {index}: "):
            recover_senders([bad.get(row, tx) for row, tx in enumerate(batch)])


PLAIN = decode_transaction(signed(type=2, **FEES))
GRANT = Authorization(1337, bytes(20), 0, 0, 1, 1)


@pytest.mark.parametrize(
    ("tx", "fork", "reason"),
    [
        (replace(PLAIN, chain_id=1), Fork.OSAKA, RejectionReason.CHAIN_ID_MISMATCH),
        (PLAIN, Fork.BERLIN, RejectionReason.TYPE_NOT_SUPPORTED),
        (replace(PLAIN, gas_limit=TRANSACTION_GAS_MAX + 1), Fork.OSAKA, RejectionReason.TRANSACTION_GAS_LIMIT),
        (replace(PLAIN, gas_limit=TRANSACTION_GAS_MAX + 1), Fork.PRAGUE, None),
        (replace(PLAIN, gas_limit=21_019), Fork.OSAKA, RejectionReason.INTRINSIC_GAS),
        (replace(PLAIN, gas_limit=21_049), Fork.OSAKA, RejectionReason.FLOOR_GAS),
        (replace(PLAIN, gas_limit=21_050), Fork.OSAKA, None),
        (replace(PLAIN, gas_limit=21_049), Fork.CANCUN, None),
        (replace(PLAIN, max_priority_fee_per_gas=10), Fork.OSAKA, RejectionReason.PRIORITY_FEE_ABOVE_MAX_FEE),
        (replace(PLAIN, max_fee_per_gas=2**255), Fork.OSAKA, RejectionReason.FEE_OVERFLOW),
        (replace(PLAIN, nonce=2**64 - 1), Fork.OSAKA, RejectionReason.NONCE_OVERFLOW),
        (
            replace(PLAIN, to=None, data=bytes(49_153), gas_limit=10**7),
            Fork.OSAKA,
            RejectionReason.INITCODE_TOO_LARGE,
        ),
        (replace(PLAIN, to=None, data=bytes(49_152), gas_limit=10**7), Fork.OSAKA, None),
        (replace(PLAIN, type=TransactionType.SET_CODE), Fork.OSAKA, RejectionReason.AUTHORIZATION_LIST_EMPTY),
        (replace(PLAIN, type=TransactionType.SET_CODE, authorizations=(GRANT,)), Fork.OSAKA, None),
        (replace(PLAIN, type=TransactionType.BLOB), Fork.OSAKA, RejectionReason.BLOB_COUNT),
        (
            replace(PLAIN, type=TransactionType.BLOB, blob_versioned_hashes=(b"\1" * 32,) * 7),
            Fork.OSAKA,
            RejectionReason.BLOB_COUNT,
        ),
        (replace(PLAIN, type=TransactionType.BLOB, blob_versioned_hashes=(b"\1" * 32,) * 7), Fork.PRAGUE, None),
        (
            replace(PLAIN, type=TransactionType.BLOB, blob_versioned_hashes=(bytes(32),)),
            Fork.OSAKA,
            RejectionReason.BLOB_HASH_VERSION,
        ),
    ],
)
def test_static_rules(tx: Transaction, fork: Fork, reason: RejectionReason | None) -> None:
    violation = static_violation(tx, fork, 1337)
    assert (violation.reason if violation else None) == reason
