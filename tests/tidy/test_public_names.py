"""`__all__` is there and true."""

import ast

import pytest

from tests.tidy.sources import PACKAGES, Module, modules

PRODUCT = [module for module in modules() if module.room in PACKAGES and len(module.tree.body) > 1]


def bound_names(module: Module) -> set[str]:
    """The names that a module's top level binds."""
    names: set[str] = set()
    for node in ast.walk(module.tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names.update(alias.asname or alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names


def declared(module: Module) -> list[str] | None:
    for node in module.tree.body:
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["__all__"]:
            return [str(name) for name in ast.literal_eval(node.value)]
    return None


@pytest.mark.parametrize("module", PRODUCT, ids=lambda module: module.name)
def test_all(module: Module) -> None:
    names = declared(module)
    assert names is not None, f"{module.path} has no __all__"
    assert len(names) == len(set(names)), f"{module.path} names something twice"
    assert set(names) <= bound_names(module), f"{module.path} does not define {set(names) - bound_names(module)}"
    assert not [name for name in names if name.startswith("_") and not name.startswith("__")]


def test_what_is_imported_is_public() -> None:
    public = {module.name: declared(module) for module in PRODUCT}
    submodules = {module.name for module in PRODUCT}
    wrong = []
    for module in PRODUCT:
        for node in ast.walk(module.tree):
            if not isinstance(node, ast.ImportFrom) or node.module not in public:
                continue
            offered = public[node.module] or []
            wrong += [
                f"{module.path}:{node.lineno}: {node.module} does not offer {alias.name}"
                for alias in node.names
                if alias.name not in offered and f"{node.module}.{alias.name}" not in submodules
            ]
    assert not wrong, "\n".join(wrong)
