"""Hypothesis strategies for the types of `core`."""

from hypothesis import strategies as st

from core.transaction import AccessListEntry, Authorization, Transaction, TransactionType

u64s = st.integers(0, 2**64 - 1)
u256s = st.one_of(st.integers(0, 300), st.integers(0, 2**256 - 1))
addresses = st.binary(min_size=20, max_size=20)
words = st.binary(min_size=32, max_size=32)

access_lists = st.lists(st.builds(AccessListEntry, addresses, st.lists(words, max_size=3).map(tuple)), max_size=3).map(
    tuple
)
authorizations = st.lists(
    st.builds(Authorization, u256s, addresses, u64s, st.integers(0, 255), u256s, u256s), max_size=3
).map(tuple)


@st.composite
def _transaction(draw: st.DrawFn) -> Transaction:
    """Any transaction that has an encoding; its signature means nothing."""
    kind = draw(st.sampled_from(TransactionType))
    fee, priority_fee = draw(u256s), draw(u256s)
    chain_id: int | None = draw(u64s)
    if kind == TransactionType.LEGACY:
        chain_id = draw(st.none() | st.integers(1, 2**64 - 1))
    creates = kind not in (TransactionType.BLOB, TransactionType.SET_CODE)
    return Transaction(
        type=kind,
        chain_id=chain_id,
        nonce=draw(u64s),
        gas_limit=draw(u64s),
        max_fee_per_gas=fee,
        max_priority_fee_per_gas=fee if kind <= TransactionType.ACCESS_LIST else priority_fee,
        to=draw(st.none() | addresses) if creates else draw(addresses),
        value=draw(u256s),
        data=draw(st.binary(max_size=80)),
        y_parity=draw(st.integers(0, 1)),
        r=draw(u256s),
        s=draw(u256s),
        access_list=() if kind == TransactionType.LEGACY else draw(access_lists),
        max_fee_per_blob_gas=draw(u256s) if kind == TransactionType.BLOB else 0,
        blob_versioned_hashes=tuple(draw(st.lists(words, max_size=3))) if kind == TransactionType.BLOB else (),
        authorizations=draw(authorizations) if kind == TransactionType.SET_CODE else (),
    )


transactions = _transaction()
