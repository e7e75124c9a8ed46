"""What style forbids, as patterns: each is a smell that has one right answer."""

import ast
import re

import pytest

from tests.tidy.sources import PACKAGES, modules, text_files

THIS = "tests/tidy/test_words.py"
NATIVE = (".cpp", ".hpp", ".cuh", ".cu", ".def")
PRODUCT = [module for module in modules() if module.room in PACKAGES]
TESTS = [module for module in modules() if module.room == "tests"]

EVERYWHERE = {
    "unfinished work": r"\b(TODO|FIXME|XXX|HACK)\b",
    "not implemented": r"raise NotImplementedError|\bunimplemented\b",
    "a path of one machine": r"(?<![\w./~\"'-])/(?:root|home|work|workspace)/\w",
    "a merge conflict": r"^(<{7} |>{7} )",
}
IN_NATIVE_CODE = {
    "printf": r"\bf?printf\s*\(",
    "malloc": r"\b(malloc|calloc|realloc|free)\s*\(",
    "new": r"(?<![\w/])new\s+\w+\s*[\[({;]",
    "virtual": r"\bvirtual\b\s+\w",
}
HOSTS_ALLOWED = re.compile(
    r"^(localhost|127\.0\.0\.1|0\.0\.0\.0|\[::1\]|host|[\w.-]*\.?example(\.\w+)?|eips\.ethereum\.org|ethereum\.org"
    r"|json-schema\.org|www\.apache\.org|arxiv\.org|openzeppelin\.com|spdx\.org|github\.com|\{[^}]*\}.*)$"
)


def hits(path: str, text: str, patterns: dict[str, str]) -> list[str]:
    return [
        f"{path}:{text.count(chr(10), 0, match.start()) + 1}: {name}: {match.group(0)!r}"
        for name, pattern in patterns.items()
        for match in re.finditer(pattern, text, re.MULTILINE)
    ]


def test_forbidden_words() -> None:
    wrong = [hit for path, text in text_files() if path != THIS for hit in hits(path, text, EVERYWHERE)]
    assert not wrong, "\n".join(wrong)


def test_native_code() -> None:
    sources = [(path, re.sub(r"//[^\n]*", "", text)) for path, text in text_files() if path.endswith(NATIVE)]
    kernels = [(path, text) for path, text in sources if not path.endswith("host.cpp")]
    wrong = [hit for path, text in kernels for hit in hits(path, text, IN_NATIVE_CODE)]
    wrong += [
        f"{path}: __CUDA_ARCH__ belongs to platform.hpp"
        for path, text in sources
        if "__CUDA_ARCH__" in text and not path.endswith("core/native/platform.hpp")
    ]
    assert not wrong, "\n".join(wrong)


def test_addresses_in_the_network() -> None:
    """No file sends a reader or a program to a host that is not named above: packages come through their clients."""
    wrong = [
        f"{path}: {match.group(0)}"
        for path, text in text_files()
        if path != THIS and not path.endswith((".lock", "package-lock.json", "LICENSE"))
        for match in re.finditer(r"\bhttps?://([^/\s:\"'`)>]+)", text)
        if not HOSTS_ALLOWED.match(match.group(1))
    ]
    assert not wrong, "\n".join(wrong)


def test_lock_files_name_no_host() -> None:
    wrong = [
        path
        for path, text in text_files()
        if (path.endswith((".lock", ".npmrc", "package-lock.json"))) and re.search(r"index-url|\"resolved\"", text)
    ]
    assert not wrong, wrong


def broad_handlers(tree: ast.Module) -> list[ast.ExceptHandler]:
    """Handlers of everything that neither re-raise nor explain why they stand at an edge (a comment with BLE001)."""
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or ast.unparse(node.type) in ("Exception", "BaseException"))
        and not any(isinstance(inner, ast.Raise) for inner in ast.walk(node))
    ]


def test_no_error_is_swallowed() -> None:
    wrong = []
    for module in PRODUCT:
        lines = module.text.splitlines()
        wrong += [
            f"{module.path}:{node.lineno}: except Exception away from a process edge"
            for node in broad_handlers(module.tree)
            if "process edge" not in lines[node.lineno - 1]
        ]
    assert not wrong, "\n".join(wrong)


def test_the_environment_is_read_in_one_place() -> None:
    wrong = [
        module.path
        for module in PRODUCT
        if re.search(r"\bos\.(environ|getenv)\b", module.text) and not module.name.startswith("node.config")
    ]
    assert not wrong, wrong


def test_names_of_modules() -> None:
    wrong = [module.path for module in modules() if module.name.split(".")[-1] in ("utils", "util", "helpers", "misc")]
    assert not wrong, wrong


@pytest.mark.parametrize(
    "pattern", [r"\bsleep\(\s*[\d.]*[1-9]", r"\brandom\.(random|randint|choice|shuffle)\(", r"\btime\.time\("]
)
def test_tests_depend_on_no_clock_and_no_chance(pattern: str) -> None:
    """Virtual time may pass, where the code says that it is virtual."""
    wrong = []
    for module in TESTS:
        lines = module.text.splitlines()
        for number, line in enumerate(lines):
            explained = any("virtual time" in near for near in lines[max(0, number - 2) : number + 1])
            if module.path != THIS and re.search(pattern, line) and not explained:
                wrong.append(f"{module.path}:{number + 1}: {line.strip()}")
    wrong = [hit for hit in wrong if not hit.startswith(("tests/bench", "tests/integration"))]
    assert not wrong, "\n".join(wrong)


def test_every_module_says_what_it_owns() -> None:
    wrong = [
        module.path
        for module in PRODUCT
        if module.text.strip() and not ast.get_docstring(module.tree) and ".gen" not in module.name
    ]
    assert not wrong, wrong


def test_commented_out_code() -> None:
    pattern = re.compile(
        r"^\s*# *(def |class |import |from \w+ import |return\b.*[)\]]$|if .*:$|for .* in .*:$|\w+\(.*\)$)"
    )
    wrong = [
        f"{module.path}:{number}: {line.strip()}"
        for module in modules()
        if module.path != THIS
        for number, line in enumerate(module.text.splitlines(), 1)
        if pattern.match(line)
    ]
    assert not wrong, "\n".join(wrong)
