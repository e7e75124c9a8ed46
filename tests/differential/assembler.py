"""EVM bytecode for tests: a name an instruction, a number for a push."""

__all__ = ["OPCODES", "assemble", "create_code", "push"]

_NAMED = """
00 STOP ADD MUL SUB DIV SDIV MOD SMOD ADDMOD MULMOD EXP SIGNEXTEND
10 LT GT SLT SGT EQ ISZERO AND OR XOR NOT BYTE SHL SHR SAR CLZ
20 KECCAK256
30 ADDRESS BALANCE ORIGIN CALLER CALLVALUE CALLDATALOAD CALLDATASIZE CALLDATACOPY CODESIZE CODECOPY GASPRICE EXTCODESIZE
3c EXTCODECOPY RETURNDATASIZE RETURNDATACOPY EXTCODEHASH
40 BLOCKHASH COINBASE TIMESTAMP NUMBER PREVRANDAO GASLIMIT CHAINID SELFBALANCE BASEFEE BLOBHASH BLOBBASEFEE
50 POP MLOAD MSTORE MSTORE8 SLOAD SSTORE JUMP JUMPI PC MSIZE GAS JUMPDEST TLOAD TSTORE MCOPY PUSH0
a0 LOG0 LOG1 LOG2 LOG3 LOG4
f0 CREATE CALL CALLCODE RETURN DELEGATECALL CREATE2
fa STATICCALL
fd REVERT INVALID SELFDESTRUCT
"""

OPCODES: dict[str, int] = {
    name: int(first, 16) + offset
    for first, *row in (line.split() for line in _NAMED.split("\n") if line)
    for offset, name in enumerate(row)
}
OPCODES |= {f"DUP{n}": 0x7F + n for n in range(1, 17)} | {f"SWAP{n}": 0x8F + n for n in range(1, 17)}


def push(value: int | bytes) -> bytes:
    """The shortest PUSH of a number, or of exactly these bytes."""
    raw = value.to_bytes((value.bit_length() + 7) // 8, "big") if isinstance(value, int) else value
    return bytes([0x5F + len(raw)]) + raw


def assemble(*parts: str | int | bytes) -> bytes:
    """Bytecode: each string holds instructions by name, each number is pushed, bytes stand as they are."""
    code = b""
    for part in parts:
        if isinstance(part, str):
            code += bytes(OPCODES[name] for name in part.split())
        elif isinstance(part, int):
            code += push(part)
        else:
            code += part
    return code


def create_code(runtime: bytes) -> bytes:
    """Initialisation code that deploys `runtime`."""
    copy = assemble(len(runtime), "DUP1", push(b"\x0b"), 0, "CODECOPY", 0, "RETURN")
    offset = len(copy)
    return copy.replace(b"\x60\x0b", bytes([0x60, offset]), 1) + runtime
