"""libwarpgrid_evm, with its functions declared. Only `worker.evm.base_state` and the engines call it.

Knows the C signatures of worker/evm/native/host.cpp and trace.cpp, and nothing else.
"""

import ctypes
from functools import cache

import core.native
from worker.evm.layouts import check_layouts

__all__ = ["Answer", "load"]

_P, _U64, _U32 = ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint32

Answer = ctypes.CFUNCTYPE(_U32, ctypes.POINTER(ctypes.c_uint8))
"""Answers one native Request in place; 0 when it could not."""

_SIGNATURES: dict[str, tuple[object, list[object]]] = {
    "base_create": (_P, [_U32]),
    "base_destroy": (None, [_P]),
    "base_add_codes": (_U32, [_P, _U64, _P, _P]),
    "base_add_accounts": (None, [_P, _U64, *[_P] * 7]),
    "base_put_account": (_U32, [_P, _U32, ctypes.c_char_p, _U64, ctypes.c_char_p, _U32, _U32]),
    "base_put_slot": (None, [_P, _U32, ctypes.c_char_p, ctypes.c_char_p]),
    "base_add_slots": (None, [_P, _U64, _P, _P, _P]),
    "base_add_block_hashes": (_U32, [_P, _U64, _P]),
    "base_add_answer": (None, [_P, _P, _P, _U32, _U32]),
    "base_credit": (None, [_P, _U32, _P, _P]),
    "base_view": (None, [_P, _U32, _P, _P]),
    "base_change_counts": (None, [_P, _P, _P]),
    "base_changes": (None, [_P, *[_P] * 6]),
    "base_forget_changes": (None, [_P]),
    "base_undo_changes": (None, [_P]),
    "base_clear_state": (None, [_P]),
    "base_clear_block_hashes": (None, [_P]),
    "base_code_size": (_U32, [_P, _U32]),
    "base_code": (_P, [_P, _U32]),
    "base_code_hash": (None, [_P, _U32, _P]),
    "session_create": (_P, [_P, _U32, _U64, _U32]),
    "session_destroy": (None, [_P]),
    "session_output": (_P, [_P]),
    "session_clear": (None, [_P, _U32]),
    "lay_out": (None, [_P, _P]),
    "common_arenas": (None, [_P]),
    "run_instances": (None, [_P, _P, _U32, _U32, _P, _P, _U64, _P]),
    "trace_create": (_P, [_U32, _U64]),
    "trace_destroy": (None, [_P]),
    "trace_view": (_U32, [_P, _P, _P]),
    "trace_layout": (None, [_P]),
    "trace_row": (_U32, [_P, _P, _U32, _P, _U64, _P, _P, _P, Answer]),
    "run_serial": (_U64, [_P, _P, _U32, _P, _U64, _P, _P, Answer]),
}


@cache
def load() -> ctypes.CDLL:
    """The library, checked once; raises NativeLibraryMissing when it was not built."""
    library = core.native.load("warpgrid_evm")
    check_layouts(library)
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(library, f"warpgrid_evm_{name}")
        function.restype, function.argtypes = result, arguments
    return library
