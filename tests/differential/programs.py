"""Random EVM programs that do something: structured statements between valid jumps, and now and then plain noise.

Everything comes from the `random.Random` given. Knows nothing of executors.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256

from tests.differential.assembler import OPCODES, assemble, create_code, push

__all__ = ["ProgramWriter", "interesting_word"]

_WORDS = (0, 1, 2, 3, 31, 32, 33, 64, 127, 128, 255, 256, 1023, 2**16 - 1, 2**31, 2**32, 2**63, 2**64 - 1, 2**64)
_WIDE_WORDS = (2**127, 2**128 - 1, 2**128, 2**160 - 1, 2**255 - 1, 2**255, 2**255 + 1, 2**256 - 2, 2**256 - 1)

_UNARY = ("ISZERO", "NOT", "CLZ", "CALLDATALOAD", "BLOCKHASH", "BLOBHASH", "BALANCE", "EXTCODESIZE", "EXTCODEHASH")
_BINARY = (
    *("ADD", "MUL", "SUB", "DIV", "SDIV", "MOD", "SMOD", "EXP", "SIGNEXTEND", "LT", "GT", "SLT", "SGT", "EQ"),
    *("AND", "OR", "XOR", "BYTE", "SHL", "SHR", "SAR"),
)
_TERNARY = ("ADDMOD", "MULMOD")
_ENVIRONMENT = (
    *("ADDRESS", "ORIGIN", "CALLER", "CALLVALUE", "CALLDATASIZE", "CODESIZE", "GASPRICE", "RETURNDATASIZE", "COINBASE"),
    *("TIMESTAMP", "NUMBER", "PREVRANDAO", "GASLIMIT", "CHAINID", "SELFBALANCE", "BASEFEE", "BLOBBASEFEE", "PC"),
    *("MSIZE", "GAS"),
)
_ENDINGS = ("STOP", "RETURN", "RETURN", "REVERT", "INVALID", "SELFDESTRUCT", "")
_MEMORY_BYTES_MAX = 160
_LOOP_TURNS_MAX = 12

# Points and values that precompiled contracts accept, so that not every call of them fails.
_BN_GENERATOR = (1).to_bytes(32, "big") + (2).to_bytes(32, "big")
_MODEXP = b"".join(n.to_bytes(32, "big") for n in (1, 1, 1)) + bytes([3, 5, 7])
# The zero polynomial is zero everywhere, and its commitment and proof are the point at infinity.
_INFINITY = b"\xc0" + bytes(47)
_POINT_EVALUATION = b"\1" + sha256(_INFINITY).digest()[1:] + bytes(64) + _INFINITY * 2
_BLAKE2F = (12).to_bytes(4, "big") + bytes(range(208)) + b"\1"


def interesting_word(choose: random.Random) -> int:
    """A 256-bit word, more often than not one at the edge of something."""
    kind = choose.random()
    if kind < 0.6:
        return choose.choice(_WORDS)
    return choose.choice(_WIDE_WORDS) if kind < 0.8 else choose.getrandbits(choose.choice((8, 64, 160, 256)))


@dataclass(slots=True)
class ProgramWriter:
    """Writes programs over some known addresses; `precompiles` are numbers of contracts worth calling."""

    choose: random.Random
    addresses: Sequence[bytes]
    precompiles: Sequence[int] = range(1, 0x12)

    def program(self, statements_max: int = 12, depth: int = 0) -> bytes:
        """A whole program: statements, then an ending."""
        if self.choose.random() < 0.06:
            return self._noise()
        code = b"".join(self._statement(depth) for _ in range(self.choose.randint(1, statements_max)))
        return code + self._ending()

    def _statement(self, depth: int) -> bytes:
        kinds: list[tuple[Callable[[], bytes], int]] = [
            (self._arithmetic, 6),
            (self._environment, 3),
            (self._memory, 4),
            (self._storage, 5),
            (self._copy, 3),
            (self._log, 2),
            (self._message, 6),
            (self._precompile, 3),
            (self._branch, 2),
            (self._stack, 1),
        ]
        if depth < 2:
            kinds += [(lambda: self._creation(depth), 2), (lambda: self._loop(depth), 2)]
        makers, weights = zip(*kinds, strict=True)
        make: Callable[[], bytes] = self.choose.choices(makers, weights)[0]
        return make()

    def _word(self) -> bytes:
        kind = self.choose.random()
        if kind < 0.1:
            return push(self.choose.choice(self.addresses))
        if kind < 0.2:
            return assemble(self.choose.choice(_ENVIRONMENT))
        if kind < 0.3:
            return assemble(self._slot(), self.choose.choice(("SLOAD", "TLOAD")))
        return push(interesting_word(self.choose))

    def _slot(self) -> int:
        return self.choose.choice((0, 0, 1, 1, 2, 3, 2**256 - 1))

    def _offset(self) -> int:
        return self.choose.randrange(_MEMORY_BYTES_MAX)

    def _size(self) -> int:
        return self.choose.choice((0, 0, 1, 20, 31, 32, 33, 64, 100))

    def _keep(self) -> bytes:
        """Do something visible with the word on top of the stack."""
        kind = self.choose.random()
        if kind < 0.35:
            return assemble(self._slot(), "SSTORE")
        if kind < 0.5:
            return assemble(self._slot(), "TSTORE")
        return assemble(self._offset(), "MSTORE") if kind < 0.85 else assemble("POP")

    def _arithmetic(self) -> bytes:
        arity = self.choose.choice((1, 2, 2, 2, 3))
        name = self.choose.choice({1: _UNARY, 2: _BINARY, 3: _TERNARY}[arity])
        return b"".join(self._word() for _ in range(arity)) + assemble(name) + self._keep()

    def _environment(self) -> bytes:
        return assemble(self.choose.choice(_ENVIRONMENT)) + self._keep()

    def _memory(self) -> bytes:
        name = self.choose.choice(("MSTORE", "MSTORE8", "MLOAD", "KECCAK256", "MCOPY"))
        if name == "MLOAD":
            return assemble(self._offset(), name) + self._keep()
        if name == "KECCAK256":
            return assemble(self._size(), self._offset(), name) + self._keep()
        if name == "MCOPY":
            return assemble(self._size(), self._offset(), self._offset(), name)
        far = self.choose.random() < 0.02
        return self._word() + push(interesting_word(self.choose) if far else self._offset()) + assemble(name)

    def _storage(self) -> bytes:
        name = self.choose.choice(("SSTORE", "SSTORE", "TSTORE"))
        return push(self.choose.choice((0, 0, 1, 2, 2**255))) + assemble(self._slot(), name)

    def _copy(self) -> bytes:
        name = self.choose.choice(("CALLDATACOPY", "CODECOPY", "EXTCODECOPY", "RETURNDATACOPY"))
        source = self.choose.choice((0, 0, 0, 1, 5, 2**64))
        size: bytes = push(self._size())
        if name == "RETURNDATACOPY" and self.choose.random() < 0.8:
            source, size = 0, assemble("RETURNDATASIZE")
        code = size + assemble(source, self._offset())
        return code + (push(self.choose.choice(self.addresses)) if name == "EXTCODECOPY" else b"") + assemble(name)

    def _log(self) -> bytes:
        topics = self.choose.randint(0, 4)
        return b"".join(self._word() for _ in range(topics)) + assemble(self._size(), self._offset(), f"LOG{topics}")

    def _gas(self) -> bytes:
        kind = self.choose.random()
        if kind < 0.6:
            return assemble("GAS")
        return push(self.choose.choice((0, 1, 700, 2_300, 2_301, 9_000, 40_000, 2**64, 2**256 - 1)))

    def _message(self) -> bytes:
        target = push(self.choose.choice(self.addresses))
        if self.choose.random() < 0.1:
            target = assemble("ADDRESS")
        return self._call(target, self._size(), self._offset())

    def _call(self, target: bytes, size: int, offset: int) -> bytes:
        name = self.choose.choice(("CALL", "CALL", "STATICCALL", "DELEGATECALL", "CALLCODE"))
        value = b""
        if name in ("CALL", "CALLCODE"):
            value = push(self.choose.choice((0, 0, 0, 1, 1, 1_000, 2**200)))
        arguments = assemble(self._size(), self._offset(), size, offset) + value + target + self._gas()
        return arguments + assemble(name) + self._keep()

    def _precompile(self) -> bytes:
        number = self.choose.choice(self.precompiles)
        data = {
            1: self.choose.randbytes(32) + (27).to_bytes(32, "big") + self.choose.randbytes(64),
            5: _MODEXP,
            6: _BN_GENERATOR * 2,
            7: _BN_GENERATOR + (9).to_bytes(32, "big"),
            8: bytes(192 * self.choose.randint(0, 2)),
            9: _BLAKE2F,
            0x0A: _POINT_EVALUATION,
            0x0B: bytes(256),
            0x0C: bytes(160),
            0x0D: bytes(512),
            0x0E: bytes(288),
            0x0F: bytes(384),
            0x10: bytes(64),
            0x11: bytes(128),
        }.get(number, self.choose.randbytes(self.choose.choice((0, 32, 128, 160, 192))))
        if self.choose.random() < 0.3:
            data = self.choose.randbytes(self.choose.choice((0, 1, 96, 128, 213, 256)))
        return self._write(data) + self._call(push(number), len(data), 0)

    def _write(self, data: bytes) -> bytes:
        words = [data[i : i + 32].ljust(32, b"\0") for i in range(0, len(data), 32)]
        return b"".join(assemble(push(word), 32 * i, "MSTORE") for i, word in enumerate(words))

    def _creation(self, depth: int) -> bytes:
        runtime = self.program(3, depth + 2)[:24_000]
        kind = self.choose.random()
        if kind < 0.6:
            init = create_code(runtime)
        elif kind < 0.9:
            init = runtime
        else:
            init = assemble(self.choose.choice((0xEF, 0)), 0, "MSTORE8", self.choose.choice((1, 24_577)), 0, "RETURN")
        value = self.choose.choice((0, 0, 1, 2**200))
        name = self.choose.choice(("CREATE", "CREATE2"))
        salt = push(self._slot()) if name == "CREATE2" else b""
        made = self._write(init) + salt + assemble(len(init), 0, value, name)
        if self.choose.random() < 0.5:
            # Call what was made, or address zero where nothing was.
            return made + assemble(0, 0, 0, 0, 0, "DUP6 GAS CALL") + self._keep() + assemble("POP")
        return made + self._keep()

    def _branch(self) -> bytes:
        if self.choose.random() < 0.03:
            return self._word() + assemble("JUMP")
        body = b"".join(self._statement(9) for _ in range(self.choose.randint(1, 2)))
        return self._word() + _jump_over(body)

    def _loop(self, depth: int) -> bytes:
        body = b"".join(self._statement(depth + 1) for _ in range(self.choose.randint(1, 2)))
        return push(self.choose.randint(1, _LOOP_TURNS_MAX)) + _loop_around(body)

    def _stack(self) -> bytes:
        count = self.choose.randint(1, 16)
        words = b"".join(self._word() for _ in range(count + 1))
        name = self.choose.choice((f"DUP{count}", f"SWAP{count}"))
        return words + assemble(name) + self._keep() + assemble(*["POP"] * count)

    def _ending(self) -> bytes:
        name = self.choose.choice(_ENDINGS)
        if name in ("RETURN", "REVERT"):
            return assemble(self._size(), self._offset(), name)
        if name == "SELFDESTRUCT":
            return push(self.choose.choice(self.addresses)) + assemble(name)
        return assemble(name) if name else b""

    def _noise(self) -> bytes:
        kind = self.choose.random()
        if kind < 0.5:
            return self.choose.randbytes(self.choose.randint(1, 60))
        names = list(OPCODES)
        parts = [self._word() if self.choose.random() < 0.5 else assemble(self.choose.choice(names)) for _ in range(40)]
        return b"".join(parts)


# Jumps are relative to PC, so that a program may stand anywhere, in initialisation code too.


def _jump_over(body: bytes) -> bytes:
    """Take a condition off the stack; jump over `body` when it is not zero."""
    jump = assemble("PC", push((6 + len(body)).to_bytes(2, "big")), "ADD JUMPI")
    return jump + body + assemble("JUMPDEST")


def _loop_around(body: bytes) -> bytes:
    """Take a count off the stack; run `body` as many times."""
    turn = assemble("JUMPDEST") + body + assemble(1, "SWAP1 SUB DUP1")
    return turn + assemble("PC", push(len(turn).to_bytes(2, "big")), "SWAP1 SUB JUMPI POP")
