import ast
from pathlib import Path

import pytest

LAYERS = [
    {"modalities", "files", "words"},
    {"tokens"},
    {"models", "losses", "data", "config"},  # none of these imports another
    {"checkpoint"},
    {"training", "evaluation"},
    {"builders"},
    {"extract", "convert", "search", "evaluate", "pack", "cost", "compare"},
    {"experiment"},
    {"command"},
    {"__init__"},
]
RANK = {part: rank for rank, layer in enumerate(LAYERS) for part in layer}
PACKAGE = Path(__file__).parents[1] / "fusion"
FILES = sorted(PACKAGE.rglob("*.py"))


def imported_parts(path):
    for node in ast.walk(ast.parse(path.read_text())):  # also imports inside functions
        if isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            names = [node.module]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        yield from (name.split(".")[1] for name in names if name.startswith("fusion."))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path):
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for part in imported_parts(path):
        assert part == own or RANK[part] < RANK[own], f"{own} must not import {part}"


def test_there_are_files():
    assert len(FILES) > 30


def test_the_trainer_knows_nothing_of_retrieval():
    """Of losses it knows how ranks talk, of models how BatchNorm cuts a batch."""
    for path in (PACKAGE / "training").glob("*.py"):
        assert not set(imported_parts(path)) & {"evaluation", "data", "modalities"}, path
        text = path.read_text()
        assert "fusion.losses" not in text.replace("fusion.losses.exchange", ""), path
        assert "fusion.models" not in text.replace("fusion.models.batchnorm", ""), path
