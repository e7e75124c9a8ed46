"""The errors of `core`, and the root of every typed error in Warpgrid.

    WarpgridError                 anything a caller may want to catch; carries a stable `code`
    ├── InvalidInput              a user's or peer's data is wrong; the message says what to change
    │   ├── RlpError              not canonical RLP, or not of the expected shape
    │   ├── TransactionError      a transaction that can never be valid (malformed, bad signature, wrong type)
    │   ├── BlockError            a block or header that breaks the rules
    │   ├── GenesisError          a genesis file that cannot be used
    │   └── ProofError            a Merkle proof that does not prove what it claims
    ├── StoreError                the data directory cannot be used as it is
    │   ├── StoreCorrupt          a record's checksum is wrong; names file, offset and block
    │   ├── StoreMismatch         another chain's or another version's data
    │   └── StatePruned           the state of that block is no longer kept
    ├── NativeLibraryMissing      the native library was not built
    └── GpuError                  a kernel could not be compiled or run
        ├── GpuUnavailable        there is no usable GPU; the message says what is missing
        └── SourcesDiffer         kernels and the native CPU library come from different sources

Three kinds of failure are never mixed: an EVM outcome is a status value (`core.execution`), bad input is one of these,
and a bug is an `assert`.
"""

__all__ = [
    "BlockError",
    "GenesisError",
    "GpuError",
    "GpuUnavailable",
    "InvalidInput",
    "NativeLibraryMissing",
    "ProofError",
    "RlpError",
    "SourcesDiffer",
    "StatePruned",
    "StoreCorrupt",
    "StoreError",
    "StoreMismatch",
    "TransactionError",
    "WarpgridError",
]


class WarpgridError(Exception):
    """Root of the tree. `code` is stable and machine-readable; the message is a sentence for people."""

    code = "error"


class InvalidInput(WarpgridError):
    code = "invalid_input"


class RlpError(InvalidInput):
    code = "invalid_rlp"


class TransactionError(InvalidInput):
    code = "invalid_transaction"


class BlockError(InvalidInput):
    code = "invalid_block"


class GenesisError(InvalidInput):
    code = "invalid_genesis"


class ProofError(InvalidInput):
    code = "invalid_proof"


class StoreError(WarpgridError):
    code = "store"


class StoreCorrupt(StoreError):
    code = "store_corrupt"


class StoreMismatch(StoreError):
    code = "store_mismatch"


class StatePruned(StoreError):
    code = "state_pruned"


class NativeLibraryMissing(WarpgridError):
    code = "native_library_missing"


class GpuError(WarpgridError):
    code = "gpu"


class GpuUnavailable(GpuError):
    code = "gpu_unavailable"


class SourcesDiffer(GpuError):
    code = "sources_differ"
