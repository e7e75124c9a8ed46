"""The replica store (design.md D6): an append-only block log, and LMDB beside it as a checkpoint of what follows."""

from core.store.reader import ReplicaReader
from core.store.replica import STATES_KEPT_DEFAULT, Replica

__all__ = ["STATES_KEPT_DEFAULT", "Replica", "ReplicaReader"]
