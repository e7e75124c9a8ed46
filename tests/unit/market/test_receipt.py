"""Receipts and their tree: Python and Solidity agree, eth-account agrees, and nothing else passes."""

import pytest
from eth_account.messages import encode_typed_data
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import ProofError
from core.hashing import keccak256
from core.jobs.receipt import Receipt, ReceiptDomain, ReceiptInvalid, recover_signer, sign_receipt
from core.jobs.request import Tier
from market.receipt_tree import leaf_of, proof_of, root_from_proof, root_of
from tests.unit.market.ledger import address_of, key_of
from tests.unit.market.scene import DOMAIN, receipt_for

digests = st.binary(min_size=32, max_size=32)
u32 = st.integers(0, 2**32 - 1)
u64 = st.integers(0, 2**64 - 1)
unit_prices = st.integers(0, 2**94)


@st.composite
def receipts(draw: st.DrawFn) -> Receipt:
    tier = draw(st.sampled_from(Tier))
    started, finished = sorted((draw(u64), draw(u64)))
    tokens, prices = (draw(u32), draw(u32)), (draw(unit_prices), draw(unit_prices))
    return Receipt(
        job_id=draw(digests),
        worker=draw(st.binary(min_size=20, max_size=20)),
        tier=tier,
        model_hash=draw(digests),
        request_hash=draw(digests),
        output_hash=draw(digests),
        trace_root=bytes(32) if tier == Tier.FLOAT else draw(digests.filter(any)),
        input_tokens=tokens[0],
        output_tokens=tokens[1],
        started_at_ms=started,
        finished_at_ms=finished,
        input_token_wei=prices[0],
        output_token_wei=prices[1],
        total_wei=tokens[0] * prices[0] + tokens[1] * prices[1],
    )


@settings(max_examples=50, deadline=None)
@given(receipts(), st.integers(1, 2**64 - 1), st.binary(min_size=20, max_size=20))
def test_digest_is_what_eth_account_signs(receipt: Receipt, chain_id: int, escrow: bytes) -> None:
    domain = ReceiptDomain(chain_id, escrow)
    signable = encode_typed_data(full_message=receipt.typed_data(domain))
    assert receipt.digest(domain) == keccak256(b"\x19" + signable.version + signable.header + signable.body)
    assert Receipt.from_solidity(receipt.solidity()) == receipt


def test_signature_names_its_signer_and_only_here() -> None:
    receipt = receipt_for(b"\x01" * 32)
    signature = sign_receipt(receipt, DOMAIN, key_of("worker signer"))
    signer = address_of("worker signer")
    assert recover_signer(receipt, DOMAIN, signature) == signer
    elsewhere = ReceiptDomain(DOMAIN.chain_id + 1, DOMAIN.escrow)
    assert recover_signer(receipt, elsewhere, signature) != signer
    assert recover_signer(receipt_for(b"\x02" * 32), DOMAIN, signature) != signer


@pytest.mark.parametrize(
    "signature",
    [b"", bytes(65), b"\xff" * 65, bytes(64), bytes(32) + b"\1" * 33],
    ids=["empty", "zero", "max", "short", "r0"],
)
def test_no_signature_is_refused(signature: bytes) -> None:
    with pytest.raises(ReceiptInvalid):
        recover_signer(receipt_for(b"\x01" * 32), DOMAIN, signature)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"total_wei": 171}, "usage times price is 170"),
        ({"tier": Tier.EXACT}, "trace_root"),
        ({"trace_root": b"\1" * 32}, "trace_root"),
        ({"started_at_ms": 2**63}, "before its start"),
        ({"input_tokens": 2**32, "total_wei": 3 * 2**32 + 140}, "at most 32 bits"),
        ({"output_tokens": -1, "total_wei": 23}, "at most 32 bits"),
        ({"model_hash": b"\1" * 31}, "must be 32 bytes"),
        ({"output_hash": b"\1" * 20}, "must be 32 bytes"),
    ],
)
def test_a_receipt_that_contradicts_itself_cannot_be_made(change: dict[str, object], complaint: str) -> None:
    with pytest.raises(ReceiptInvalid, match=complaint):
        receipt_for(b"\x01" * 32, **change)


@given(st.lists(digests, min_size=1, max_size=40), st.data())
def test_every_leaf_has_a_proof_and_no_other_place(leaves: list[bytes], data: st.DataObject) -> None:
    size, root = len(leaves), root_of(leaves)
    index = data.draw(st.integers(0, size - 1))
    proof = proof_of(leaves, index)
    assert root_from_proof(leaves[index], index, size, proof) == root
    if proof:
        with pytest.raises(ProofError):
            root_from_proof(leaves[index], index, size, proof[:-1])
    with pytest.raises(ProofError):
        root_from_proof(leaves[index], index, size, (*proof, b"\0" * 32))
    other = data.draw(st.integers(0, size - 1))
    if leaves[other] != leaves[index]:
        try:
            moved = root_from_proof(leaves[index], other, size, proof)
        except ProofError:
            return
        assert moved != root


def test_tree_has_the_shape_of_rfc_9162() -> None:
    a, b, c = (leaf_of(bytes([i]) * 32) for i in range(3))
    node = lambda left, right: keccak256(b"\1" + left + right)  # noqa: E731
    assert a == keccak256(b"\0" + bytes(32))
    assert root_of([a]) == a
    assert root_of([a, b, c]) == node(node(a, b), c)
    assert proof_of([a, b, c], 2) == (node(a, b),)
    with pytest.raises(ProofError, match="not in a batch"):
        root_from_proof(a, 3, 3, ())
