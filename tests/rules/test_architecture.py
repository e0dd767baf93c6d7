"""The rooms of the house: which may lead to which, how much stands in one, and what must not load torch.

Imports are read from the syntax trees, those inside functions included: a lazy import is an arrow too.
"""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("harness", "methods", "hydra_plugins", "conf")
MOST_MODULES, MOST_LINES, MOST_LINES_OF_A_FUNCTION, WIDTH = 14, 260, 50, 110
AT_THE_TOP = {"__init__", "cli", "run"}  # modules that lie directly in harness/

# What a room may import of the product. Rooms that are not named here are bound by `NEVER` alone.
ONLY = {
    "harness.foundation": set(),
    "harness.records": {"harness.foundation"},
    "harness.reporting": {"harness.records", "harness.foundation", "conf"},
    "harness.config": {"harness.foundation", "methods.contracts", "conf"},
    "methods.contracts": set(),
    "methods.weights": {"methods.contracts"},
    "methods.kernels": {"methods.weights"},
}
# What a room must not import. A walk over blocks knows no disk but its cache and its resume, a run no sweep.
NEVER = {
    "harness.data": {"harness.checkpoints", "harness.quantization", "harness.bookkeeping"},
    "harness.models": {
        "harness.checkpoints",
        "harness.quantization",
        "harness.bookkeeping",
        "harness.evaluation",
    },
    "harness.evaluation": {
        "harness.checkpoints",
        "harness.quantization",
        "harness.bookkeeping",
        "harness.models",
    },
    "harness.quantization": {
        "harness.evaluation",
        "harness.records",
        "harness.bookkeeping",
        "harness.tracking",
    },
    "harness.run": {"harness.planning", "harness.sweeps", "harness.commands", "harness.reporting"},
    "harness.planning": {"harness.run", "harness.sweeps"},
    "harness.sweeps": {"harness.commands"},
    "methods": {"harness"},
}
# Who alone may import a module.
CALLERS = {
    "harness.cli": set(),
    "harness.sweeps.server": set(),
    "harness.commands": {"harness.cli", "harness.commands"},
    "harness.run": {"harness.sweeps", "harness.commands"},
}
OF_CONTENT = {"tables", "papers", "claims", "figures"}  # rooms of reporting that know what a report says
WITHIN_REPORTING = {"formats": OF_CONTENT, "drawing": OF_CONTENT, "tables": OF_CONTENT - {"tables"}}


@cache
def modules():
    """Files of the product by the dotted names of their modules."""
    files = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return files


@cache
def imports():
    """For every module the modules of the product that it imports."""
    return {name: targets(path.read_text(encoding="utf-8"), modules()) for name, path in modules().items()}


def targets(source, known):
    """The modules among `known` that a source imports; `import_module` of a literal counts."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            names |= {argument.value for argument in node.args[:1] if isinstance(argument, ast.Constant)}
    found = names & set(known)
    # `from harness.records import store` names the room too, which holds a docstring and nothing else
    return {name for name in found if not any(other.startswith(f"{name}.") for other in found)}


def within(module, room):
    return module == room or module.startswith(f"{room}.")


def arrows(into_itself=False):
    for name, imported in imports().items():
        yield from ((name, target) for target in sorted(imported) if into_itself or target != name)


def test_no_import_runs_in_a_circle():
    depths = {}

    def depth(name, path=()):
        assert name not in path, " -> ".join((*path[path.index(name) :], name))
        if name not in depths:
            depths[name] = 1 + max((depth(target, (*path, name)) for target in imports()[name]), default=0)
        return depths[name]

    assert max(map(depth, modules())) > 5


@pytest.mark.parametrize("room", ONLY)
def test_a_room_imports_only_what_it_may(room):
    allowed = {*ONLY[room], room}
    assert [
        f"{name} -> {target}"
        for name, target in arrows()
        if within(name, room) and not any(within(target, other) for other in allowed)
    ] == []


@pytest.mark.parametrize("room", NEVER)
def test_a_room_never_imports(room):
    assert [
        f"{name} -> {target}"
        for name, target in arrows()
        if within(name, room) and any(within(target, other) for other in NEVER[room])
    ] == []


@pytest.mark.parametrize("module", CALLERS)
def test_a_module_is_imported_by_nobody_else(module):
    assert [
        f"{name} -> {target}"
        for name, target in arrows()
        if within(target, module) and not any(within(name, room) for room in CALLERS[module])
    ] == []


def test_formats_and_drawing_know_no_content():
    assert [
        f"{name} -> {target}"
        for name, target in arrows()
        if name.startswith("harness.reporting.")
        and target.startswith("harness.reporting.")
        and target.split(".")[2] in WITHIN_REPORTING.get(name.split(".")[2], ())
    ] == []


def test_three_modules_lie_in_the_hall():
    assert {path.stem for path in (ROOT / "harness").glob("*.py")} == AT_THE_TOP


def test_no_room_is_crowded():
    rooms = {path.parent for path in modules().values()}
    counts = {room: len([path for path in room.glob("*.py") if path.stem != "__init__"]) for room in rooms}
    assert {
        str(room.relative_to(ROOT)): count for room, count in counts.items() if count > MOST_MODULES
    } == {}


def test_files_and_functions_are_short():
    long = []
    for path in modules().values():
        source = path.read_text(encoding="utf-8")
        name = path.relative_to(ROOT).as_posix()
        lines = source.splitlines()
        if len(lines) > MOST_LINES:
            long.append(f"{name}: {len(lines)} lines")
        for node in ast.walk(ast.parse(source)):
            if (
                isinstance(node, ast.FunctionDef)
                and node.end_lineno - node.lineno >= MOST_LINES_OF_A_FUNCTION
            ):
                long.append(f"{name}: {node.name} has {node.end_lineno - node.lineno + 1} lines")
    assert long == []


def test_lines_are_no_wider_than_a_page():
    """Tables may be: they say so with `noqa`."""
    wide = []
    for path in modules().values():
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if len(line) > WIDTH and "noqa" not in line and "fmt: skip" not in line:
                wide.append(f"{path.relative_to(ROOT)}:{number}")
    assert wide == []


def test_an_init_holds_a_docstring_and_nothing_else():
    full = [path for path in modules().values() if path.name == "__init__.py"]
    full = [path for path in full if len(ast.parse(path.read_text(encoding="utf-8")).body) > 1]
    assert full == []


def test_no_private_name_crosses_a_wall():
    crossing = []
    for name, path in modules().items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in PACKAGES:
                private = [alias.name for alias in node.names if alias.name.startswith("_")]
                crossing += [f"{name}: {node.module}.{entry}" for entry in private]
    assert crossing == []


LIGHT = {
    "reporting": "import harness.reporting.assembly, harness.reporting.writing, harness.commands.report",
    "records": "import harness.records.store, harness.records.standing, harness.records.attempts",
    "status": "from harness.cli import main; main(['status', '--results', '.'])",
    "help": "from harness.cli import main; main(['--help'])",
    "help of report": "from harness.cli import main; main(['report', '--help'])",
}


@pytest.mark.parametrize("name", LIGHT)
def test_no_torch(name, tmp_path):
    """Whoever looks at records or asks for help does not wait for torch."""
    code = f"import sys\ntry: {LIGHT[name]}\nexcept SystemExit: pass\nassert 'torch' not in sys.modules"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_the_rules_see_lazy_imports_and_names_of_modules():
    """Or everything above would pass for the wrong reason."""
    known = {"a", "a.b", "a.b.c", "a.d"}
    assert targets("def f():\n    from a.b import c, other", known) == {"a.b.c"}
    assert targets("import a.d\nfrom a.b import name", known) == {"a.d", "a.b"}
    assert targets("import_module('a.b.c')", known) == {"a.b.c"}
