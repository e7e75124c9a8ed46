"""Brings state into the engine's base as transactions ask for it, from any `StateReader`."""

import numpy as np

from core.columns import int_from_limbs, limbs_from_ints
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
        self._records: dict[bytes, int] = {}
        self._codes: dict[bytes, int] = {EMPTY_CODE_HASH: 0}

    def resolve(self, base: BaseState, batch: Batch, outcomes: Outcomes, rows: list[int]) -> None:
        for row in rows:
            request = outcomes.results["request"][row]
            kind, address = RequestKind(int(request["kind"])), request["address"].tobytes()
            if kind == RequestKind.ACCOUNT:
                self.load_account(base, address)
            elif kind == RequestKind.SLOT:
                value = self._state.storage(address, int_from_limbs(request["key"]))
                base.add_slots(
                    np.array([self._records[address]]), request["key"].reshape(1, 4), limbs_from_ints([value])
                )
            else:
                # The block's hashes were given with its context: EELS reads one that is missing as zero.
                assert kind == RequestKind.BLOCK_HASH, f"no answer to a request of kind {kind.name}"
                raise AssertionError(f"the context lacks the hash of block {int_from_limbs(request['key'])}")

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
        self._records[address] = base.add_account(
            address,
            nonce=account.nonce,
            balance=account.balance,
            code=self._codes[account.code_hash],
            flags=flags | AccountFlag.EXISTS if found else flags,
        )
