"""Who may know whom (ARCHITECTURE.md), and no cycles."""

import ast
from collections.abc import Iterator

from tests.tidy.sources import PACKAGES, Module, modules

PERMITTED = {
    "core": {"core"},
    "protos": {"core", "protos"},
    "zk": {"core", "protos", "zk"},
    "market": {"core", "protos", "zk", "market"},
    "sequencer": {"core", "protos", "zk", "market", "sequencer"},
    "worker": {"core", "protos", "zk", "worker"},
    "node": set(PACKAGES),
}
OPTIONAL_HEAVY = {"cupy", "cupyx", "huggingface_hub", "torch"}
PRODUCT = [module for module in modules() if module.room in PACKAGES]


def imported(module: Module, *, nested: bool = True) -> Iterator[tuple[str, ast.AST]]:
    """The dotted names that a module imports, with the statement."""
    nodes = ast.walk(module.tree) if nested else iter(module.tree.body)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((alias.name, node) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module.path}:{node.lineno}: imports are absolute"
            yield from ((f"{node.module}.{alias.name}", node) for alias in node.names)


def test_rooms_import_only_those_below_them() -> None:
    wrong = [
        f"{module.path}:{node.lineno}: {module.room} may not import {name}"  # type: ignore[attr-defined]
        for module in PRODUCT
        for name, node in imported(module)
        if name.split(".")[0] in (*PACKAGES, "tests") and name.split(".")[0] not in PERMITTED[module.room]
    ]
    assert not wrong, "\n".join(wrong)


def test_no_cycles() -> None:
    names = {module.name for module in PRODUCT}
    graph: dict[str, set[str]] = {}
    for module in PRODUCT:
        targets = {name if name in names else name.rpartition(".")[0] for name, _ in imported(module)}
        graph[module.name] = (targets & names) - {module.name}
    finished: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, "import cycle: " + " -> ".join((*path[path.index(name) :], name))
        if name not in finished:
            for target in sorted(graph[name]):
                visit(target, (*path, name))
            finished.add(name)

    for name in graph:
        visit(name, ())


def test_imports_stand_at_the_top() -> None:
    """Only optional heavy packages may be imported inside a function, in the adapter that needs them."""
    wrong = []
    for module in PRODUCT:
        top = {id(node) for _, node in imported(module, nested=False)}
        for name, node in imported(module):
            guarded = any(
                isinstance(parent, (ast.If, ast.Try)) and node in ast.walk(parent) for parent in module.tree.body
            )
            if id(node) not in top and not guarded and name.split(".")[0] not in OPTIONAL_HEAVY:
                wrong.append(f"{module.path}:{node.lineno}: {name}")  # type: ignore[attr-defined]
    assert not wrong, "\n".join(wrong)


def test_protobuf_stops_at_rpc() -> None:
    wrong = [
        f"{module.path}: {name}"
        for module in PRODUCT
        for name, _ in imported(module)
        if ("_pb2" in name or name.startswith("protos.gen."))
        and module.name.split(".")[-1] != "rpc"
        and not module.name.startswith("protos.")
    ]
    assert not wrong, "protobuf types stop at rpc.py:\n" + "\n".join(wrong)


def test_nothing_private_crosses_modules() -> None:
    wrong = [
        f"{module.path}: {name}"
        for module in PRODUCT
        for name, _ in imported(module)
        if name.split(".")[0] in PACKAGES and name.split(".")[-1].startswith("_")
    ]
    assert not wrong, "\n".join(wrong)
