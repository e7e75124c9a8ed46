"""The base that an executor keeps from block to block, so that a block need not bring again what the last one brought.

Owns the decision of what is still true. Codes are true of every state. Accounts and slots are true of the state with
one root: the one they were read from, or the one that the last block's changes led to, once somebody who knows its root
says so. Another root (another fork, a restart, a block that was not kept) makes the base forget them.
"""

from core.state import StateDifference, StateReader
from worker.evm.base_state import BaseState
from worker.evm.state_resolver import StateResolver

__all__ = ["ACCOUNTS_KEPT_MAX", "CODE_BYTES_KEPT_MAX", "KeptBase"]

ACCOUNTS_KEPT_MAX = 1 << 20
CODE_BYTES_KEPT_MAX = 256 << 20


class KeptBase:
    """One base with its resolver. `open` gives them for a state; `executed` and `keep` tell what became of a block."""

    def __init__(self) -> None:
        self._base: BaseState | None = None
        self._resolver: StateResolver | None = None
        self._root: bytes | None = None
        self._difference: StateDifference | None = None

    def open(self, state: StateReader, root: bytes | None) -> tuple[BaseState, StateResolver]:
        """A base that holds nothing but what is true of `state`, and its resolver.

        `root` is the state's, or None where it would cost too much to know: then only codes are kept.
        """
        base, resolver = self._base, self._resolver
        if base is None or resolver is None or base.view()[1][1] > CODE_BYTES_KEPT_MAX:
            base, resolver = BaseState(accounts_complete=False), StateResolver(state)
        elif root is not None and root == self._root and resolver.account_count <= ACCOUNTS_KEPT_MAX:
            base.undo_changes()
        else:
            base.clear_state()
            resolver.forget_accounts()
        base.clear_block_hashes()
        resolver.read(state)
        self._base, self._resolver, self._root, self._difference = base, resolver, root, None
        return base, resolver

    def executed(self, difference: StateDifference) -> None:
        """The base has become the state after `difference`."""
        self._difference = difference

    def keep(self, difference: StateDifference, root: bytes) -> None:
        """What `executed` told of last became the state with this root. Any other difference changes nothing here."""
        if difference is not self._difference or self._base is None:
            return
        self._base.accept_changes()
        self._root, self._difference = root, None
