"""EVM programs as text. The names come from the engine's one list, worker/evm/native/opcodes.def."""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

__all__ = ["disassemble", "opcode_names"]

_PUSH0, _PUSH32 = 0x5F, 0x7F
_ENTRY = re.compile(r"^WG_OPCODE\((0x[0-9a-f]{2}), (\w+),", re.MULTILINE)


@cache
def opcode_names() -> dict[int, str]:
    """Byte to name of every instruction."""
    text = (Path(__file__).parent / "native" / "opcodes.def").read_text()
    return {int(byte, 16): name for byte, name in _ENTRY.findall(text)}


def disassemble(code: bytes) -> Iterator[tuple[int, str]]:
    """(offset, text) of each instruction; a byte that is none is shown as INVALID with its value."""
    names, position = opcode_names(), 0
    while position < len(code):
        opcode = code[position]
        size = opcode - _PUSH0 if _PUSH0 < opcode <= _PUSH32 else 0
        text = names.get(opcode, f"INVALID 0x{opcode:02x}")
        if size:
            text += " 0x" + code[position + 1 : position + 1 + size].ljust(size, b"\0").hex()
        yield position, text
        position += 1 + size
