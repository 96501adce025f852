import ast
import functools
from pathlib import Path

LAYERS = [
    {"data.untrusted"},
    {"modalities", "files", "manifest", "parts", "process", "recipes", "signals", "typed"}
    | {"value_types", "words"},
    {"tokens"},
    {"arithmetic", "batches", "distributed", "interfaces", "out_of_memory"},
    {"models", "losses", "data", "config"},  # none of these imports another
    {"checkpoint"},
    {"training", "evaluation"},
    {"builders"},
    {"extract", "convert", "report"},
    {"inference"},
    {"tasks"},
    {"search", "study", "plan"},
    {"serve"},
    {"commands"},
    {"cli"},
    {"__init__", "__main__"},
]
ROOMS_OF_DATA = [
    {"untrusted"},
    {"media"},
    {"features"},
    {"captions", "demo"},
    {"datasets"},
    {"questions", "labelled"},
    {"steps"},
]
RANK = {part: rank for rank, layer in enumerate(LAYERS) for part in layer}
RANK_IN_DATA = {room: rank for rank, rooms in enumerate(ROOMS_OF_DATA) for room in rooms}
PACKAGE = Path(__file__).parents[1] / "fusion"
FILES = sorted(PACKAGE.rglob("*.py"))


def part_of(module):
    """The part of the package that a module is in; ``data.untrusted`` is a floor of its own."""
    parts = module.split(".")
    return ".".join(parts[:2]) if parts[:2] == ["data", "untrusted"] else parts[0]


@functools.cache
def imported_modules(path):
    """Name the modules of the package that a file imports, relative to it."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):  # also imports inside functions
        if isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            names = [node.module]
            if node.module == "fusion":
                names = [f"fusion.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        found += (name.removeprefix("fusion.") for name in names if name.startswith("fusion."))
    return found


def module_of(path):
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def test_imports_point_down():
    wrong = []
    for path in FILES:
        own = part_of(module_of(path))
        for part in map(part_of, imported_modules(path)):
            if part != own and RANK[part] >= RANK[own]:
                wrong.append(f"{module_of(path)}: {own} must not import {part}")
    assert not wrong


def test_rooms_of_data_import_one_way():
    wrong = []
    for path in (PACKAGE / "data").glob("*/**/*.py"):
        _, own, *_ = module_of(path).split(".")
        for module in imported_modules(path):
            part, _, rest = module.partition(".")
            room = rest.partition(".")[0]
            if part == "data" and room != own and RANK_IN_DATA[room] >= RANK_IN_DATA[own]:
                wrong.append(f"{module_of(path)} must not import {module}")
    assert not wrong


def test_there_are_files():
    assert len(FILES) > 30
    assert {
        path.name for path in (PACKAGE / "data").iterdir() if path.is_dir()
    } >= RANK_IN_DATA.keys()


def test_the_trainer_knows_nothing_of_retrieval():
    """Of models it knows how BatchNorm cuts a batch."""
    for path in (PACKAGE / "training").glob("*.py"):
        assert not set(map(part_of, imported_modules(path))) & {"evaluation", "data", "losses"}, (
            path
        )
        text = path.read_text()
        assert "fusion.models" not in text.replace("fusion.models.batchnorm", ""), path


def test_nothing_outside_tasks_asks_which_task_it_is():
    """``tasks/__init__.py`` looks the name up in its table; nobody compares it."""
    for path in FILES:
        if "tasks" not in path.parts:
            assert '["task"]' not in path.read_text(), path
            assert 'config.get("task"' not in path.read_text(), path
