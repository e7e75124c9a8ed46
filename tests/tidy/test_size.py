"""Functions about 50 lines at most, files about 400: beyond 70 and 600 only what too_long.txt lists, which shrinks.

Lines have 120 columns at most: ruff sees to Python's, the test here to those of native code.
"""

import ast

from tests.tidy.sources import ROOT, modules, text_files

FUNCTION_LINES_MAX = 70
FILE_LINES_MAX = 600
COLUMNS_MAX = 120
NATIVE = (".cpp", ".hpp", ".cu", ".cuh", ".inc", ".def")
CODE = (".py", *NATIVE, ".sol", ".sh", ".mjs")

EXCEPTIONS = {
    line.split()[0]: int(line.split()[1])
    for line in (ROOT / "tests/tidy/too_long.txt").read_text().splitlines()
    if line and not line.startswith("#")
}


def lengths() -> dict[str, int]:
    """What is too long: `path` of a file, or `path:function`, with its lines."""
    files = {path: text.count("\n") for path, text in text_files() if path.endswith(CODE)}
    found = {path: lines for path, lines in files.items() if lines > FILE_LINES_MAX}
    for module in modules():
        for node in ast.walk(module.tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > FUNCTION_LINES_MAX:
                    found[f"{module.path}:{node.name}"] = lines
    return found


def test_nothing_is_too_long() -> None:
    new = {name: lines for name, lines in lengths().items() if lines > EXCEPTIONS.get(name, 0)}
    assert not new, f"split these (or explain each in too_long.txt): {new}"


def test_the_exceptions_shrink() -> None:
    now = lengths()
    stale = {name: now.get(name, 0) for name, allowed in EXCEPTIONS.items() if now.get(name, 0) < allowed}
    assert not stale, f"these became shorter; lower or remove them in too_long.txt: {stale}"


def test_native_lines_are_not_too_wide() -> None:
    wide = [
        f"{path}:{number}"
        for path, text in text_files()
        if path.endswith(NATIVE)
        for number, line in enumerate(text.splitlines(), 1)
        if len(line) > COLUMNS_MAX
    ]
    assert not wide, f"break these at {COLUMNS_MAX} columns: {wide}"
