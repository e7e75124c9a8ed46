"""MemoryState and OverlaidState: one model of a state, three ways to arrive at it."""

from hypothesis import given
from hypothesis import strategies as st

from core.hashing import EMPTY_TRIE_ROOT, keccak256
from core.memory_state import AccountContents, MemoryState
from core.overlay import AccountOverride, OverlaidState, override_accounts
from core.state import Account, AccountChange, StateDifference

ADDRESSES = [bytes([n]) * 20 for n in range(1, 5)]
SLOTS = range(4)

storages = st.dictionaries(st.sampled_from(SLOTS), st.integers(0, 3))
codes = st.sampled_from([b"", b"\x00", b"\x60\x01"])
contents = st.builds(AccountContents, st.integers(0, 2), st.integers(0, 2**80), codes, storages)
states = st.dictionaries(st.sampled_from(ADDRESSES), contents).map(MemoryState)


@st.composite
def changes(draw: st.DrawFn) -> AccountChange:
    code = draw(codes)
    account = Account(draw(st.integers(0, 9)), draw(st.integers(0, 9)), keccak256(code))
    return AccountChange(account, draw(storages), draw(st.booleans()), code or None)


removal = st.just(AccountChange(None, storage_cleared=True))
differences = st.dictionaries(st.sampled_from(ADDRESSES), st.one_of(changes(), removal)).map(
    StateDifference.from_changes
)


def everything(state: MemoryState | OverlaidState) -> dict[bytes, object]:
    seen: dict[bytes, object] = {}
    for address in ADDRESSES:
        account = state.account(address)
        if account is not None:
            slots = tuple(state.storage(address, slot) for slot in SLOTS)
            seen[address] = (account.nonce, account.balance, state.code(account.code_hash), slots)
    return seen


@given(states, differences, differences)
def test_overlay_equals_applying(state: MemoryState, first: StateDifference, second: StateDifference) -> None:
    applied = state.apply(first).apply(second)
    overlaid = OverlaidState(OverlaidState(state, first), second)
    assert everything(overlaid) == everything(applied)
    assert overlaid.root == applied.root
    assert OverlaidState(state, first).root_after(second) == applied.root
    for address in ADDRESSES:
        account, expected = overlaid.account(address), applied.account(address)
        if account is not None and expected is not None and expected.storage_root != EMPTY_TRIE_ROOT:
            assert account.storage_root != EMPTY_TRIE_ROOT


def test_zeros_are_not_stored() -> None:
    assert MemoryState().root == EMPTY_TRIE_ROOT
    one = MemoryState({ADDRESSES[0]: AccountContents(balance=1)})
    two = MemoryState({ADDRESSES[0]: AccountContents(balance=1, storage={7: 0})})
    assert one.root == two.root != EMPTY_TRIE_ROOT


def test_applying_leaves_the_earlier_version() -> None:
    state = MemoryState({ADDRESSES[0]: AccountContents(1, 5, b"\x00", {1: 1})})
    root = state.root
    gone = state.apply(StateDifference.from_changes({ADDRESSES[0]: AccountChange(None, storage_cleared=True)}))
    assert gone.account(ADDRESSES[0]) is None
    assert gone.root == EMPTY_TRIE_ROOT
    assert (state.root, state.storage(ADDRESSES[0], 1)) == (root, 1)


def test_override_replaces_only_what_it_names() -> None:
    state = MemoryState({ADDRESSES[0]: AccountContents(1, 5, b"\x00", {1: 1, 2: 2})})
    some = override_accounts(state, {ADDRESSES[0]: AccountOverride(balance=9, state_difference={2: 7})})
    assert everything(some) == {ADDRESSES[0]: (1, 9, b"\x00", (0, 1, 7, 0))}
    whole = override_accounts(state, {ADDRESSES[0]: AccountOverride(code=b"", state={3: 3})})
    assert everything(whole) == {ADDRESSES[0]: (1, 5, b"", (0, 0, 0, 3))}
    created = override_accounts(state, {ADDRESSES[1]: AccountOverride(code=b"\x60\x01")})
    assert everything(created)[ADDRESSES[1]] == (0, 0, b"\x60\x01", (0, 0, 0, 0))
