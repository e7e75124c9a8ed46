"""Brings state into the engine's base as transactions ask for it, from any `StateReader`."""

from core.columns import int_from_limbs
from core.hashing import EMPTY_CODE_HASH, EMPTY_TRIE_ROOT
from core.state import EMPTY_ACCOUNT, StateReader
from worker.evm.base_state import BaseState
from worker.evm.batch import Batch, Outcomes
from worker.evm.layouts import AccountFlag, RequestKind

__all__ = ["StateResolver"]


class StateResolver:
    """Answers the requests of transactions in world 0 with what `state` holds. Remembers what it has brought."""

    def __init__(self, state: StateReader) -> None:
        self._state = state
        self.forget_accounts()
        self._codes: dict[bytes, int] = {EMPTY_CODE_HASH: 0}

    def read(self, state: StateReader) -> None:
        """Read this state from now on; what was brought from another must be true of it, or be forgotten."""
        self._state = state

    def forget_accounts(self) -> None:
        """For a base that has forgotten them as well. Codes stay."""
        self._records: dict[bytes, int] = {}

    @property
    def account_count(self) -> int:
        """How many accounts were brought."""
        return len(self._records)

    def answer(self, base: BaseState, kind: RequestKind, address: bytes, key: bytes) -> None:
        """Bring one account or slot; `key` is the slot as 32 little-endian bytes."""
        if kind == RequestKind.ACCOUNT:
            self.load_account(base, address)
        else:
            assert kind == RequestKind.SLOT, f"no answer to a request of kind {kind.name}"
            value = self._state.storage(address, int.from_bytes(key, "little"))
            base.put_slot(self._records[address], key, value)

    def resolve(self, base: BaseState, batch: Batch, outcomes: Outcomes, rows: list[int]) -> None:
        for row in rows:
            request = outcomes.results["request"][row]
            kind, address = RequestKind(int(request["kind"])), request["address"].tobytes()
            # The block's hashes were given with its context: EELS reads one that is missing as zero.
            assert kind != RequestKind.BLOCK_HASH, f"the context lacks block {int_from_limbs(request['key'])}"
            self.answer(base, kind, address, request["key"].tobytes())

    def load_account(self, base: BaseState, address: bytes) -> None:
        """Bring one account, once."""
        if address in self._records:
            return
        found = self._state.account(address)
        account = found or EMPTY_ACCOUNT
        has_storage = account.storage_root != EMPTY_TRIE_ROOT
        flags = AccountFlag.HAS_STORAGE if has_storage else AccountFlag.STORAGE_COMPLETE
        if account.code_hash not in self._codes:
            self._codes[account.code_hash] = base.add_codes([self._state.code(account.code_hash)])
        flags = flags | AccountFlag.EXISTS if found else flags
        code = self._codes[account.code_hash]
        self._records[address] = base.put_account(address, account.nonce, account.balance, code, flags)
