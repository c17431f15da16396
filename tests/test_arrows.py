"""The house: who may import whom, and how much one file and one main() may hold. design.md, section 1."""

import ast
import sys
from graphlib import TopologicalSorter

import pytest
from conftest import REPO

FILES = {
    ".".join(p.relative_to(REPO).with_suffix("").parts): p for p in [*REPO.glob("*.py"), *REPO.glob("common/**/*.py")]
}
GROUND = ["errors", "files", "progress", "parallel"]
ROOMS = ["run", "show", "deploy"]


def floor(module: str) -> int:
    """Arrows point downwards: 3 scripts, 2 rooms, 1 the science, 0 the ground."""
    common, name = module.split(".")[:2] if "." in module else ("", "")
    return 3 if not common else 2 if name in ROOMS else 0 if name in GROUND else 1


def imports(module: str) -> set[str]:
    """What a file imports, wherever in it: modules of this project by their full name, packages by their first."""
    found = set()
    for node in ast.walk(ast.parse(FILES[module].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: a relative import"
            both = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= both & FILES.keys() or {node.module or ""}
    return {name if name.split(".")[0] == "common" else name.split(".")[0] for name in found}


ARROWS = {module: imports(module) for module in FILES if not module.endswith("__init__")}


def test_arrows_point_downwards():
    wrong = [
        f"{module} imports {other}"
        for module, others in ARROWS.items()
        for other in others & ARROWS.keys()
        if floor(other) > floor(module) or floor(other) == 3
    ]
    assert wrong == []


def test_rooms_are_apart_but_that_deploy_opens_run_folders():
    room = {module: module.split(".")[1] for module in ARROWS if floor(module) == 2}
    arrows = {(a, b) for a in room for b in ARROWS[a] & room.keys() if room[a] != room[b]}
    assert {(room[a], b) for a, b in arrows} <= {("deploy", "common.run.folders")}


def test_there_is_no_circle():
    tuple(TopologicalSorter(ARROWS).static_order())  # raises CycleError


def test_metrics_need_numpy_only():
    assert ARROWS["common.metrics"] - sys.stdlib_module_names == {"numpy"}


def test_imports_are_explicit():
    """No package that imports for its readers, and no `common` to reach through."""
    assert all(path.read_text() == "" for path in REPO.glob("common/**/__init__.py"))
    assert [
        module for module, others in ARROWS.items() if others & {"common", *(f"common.{room}" for room in ROOMS)}
    ] == []


@pytest.mark.parametrize("module", ARROWS)
def test_a_file_is_read_in_one_sitting_and_a_main_at_one_glance(module):
    text = FILES[module].read_text()
    assert len(text.splitlines()) <= 300
    mains = [n for n in ast.parse(text).body if isinstance(n, ast.FunctionDef) and n.name == "main"]
    assert len(mains) == (floor(module) == 3)  # a library module has none
    assert all(main.end_lineno - main.lineno < 45 for main in mains)
