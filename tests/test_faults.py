"""The table of docs/faults.md names a test for each fault, and the tests are there."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROWS = re.findall(r"^\| (F\d\d) \|.*\| (.*) \|$", (ROOT / "docs/faults.md").read_text(), re.M)
NAMED = [
    (fault, *test)
    for fault, tests in ROWS
    for test in re.findall(r"`(.*?)::(\w+)`( \(slow\))?", tests)
]


def is_slow(function):
    """Return whether a test is slow in all its cases; single cases have the mark in their list."""
    marks = [decorator for decorator in function.decorator_list if "slow" in ast.unparse(decorator)]
    return any(ast.unparse(mark) == "pytest.mark.slow" for mark in marks)


def test_each_fault_has_a_row_with_a_test():
    assert [fault for fault, _ in ROWS] == [f"F{number:02}" for number in range(1, 35)]
    assert {fault for fault, *_ in NAMED} == {fault for fault, _ in ROWS}
    assert len(NAMED) > 60


def test_each_test_that_is_named_is_there_with_the_number_of_its_fault():
    for fault, file, name, slow in NAMED:
        found = [
            node
            for node in ast.parse((ROOT / file).read_text()).body
            if isinstance(node, ast.FunctionDef) and node.name == name
        ]
        assert len(found) == 1, (file, name)
        assert fault.lower() in name.split("_"), (fault, name)
        assert is_slow(found[0]) == bool(slow), (file, name)
