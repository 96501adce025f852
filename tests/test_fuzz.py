"""A few damaged files for each reader; ``python -m tests.fuzz all 600`` tries many."""

import pytest

from fusion.data.untrusted import pickle, torch_file, weight_files
from tests import fuzz


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """Without the program with limits, which takes longer than such small files."""
    for module in (pickle, torch_file, weight_files):
        monkeypatch.setattr(module, "follow_elsewhere", lambda *_: None)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("reader", fuzz.ALL)
def test_f13_damaged_files_are_refused_in_one_line_or_read(reader):
    found = fuzz.fuzz(reader, seconds=60, seed=1, most=40)
    assert found["crashes"] == []
    assert 10 <= found["tried"] <= 40


def broken(path):
    raise KeyError("x")


def long_winded(path):
    raise OSError(f"{path}: a\nb")


def nameless(path):
    raise ValueError("somewhere")


@pytest.mark.parametrize("read", [broken, long_winded, nameless, lambda path: 1 / 0])
def test_a_crash_is_noticed(read, monkeypatch):
    monkeypatch.setitem(fuzz.READERS, "bad", (read, ".x", [b"whole"]))
    assert len(fuzz.fuzz("bad", 60, most=3)["crashes"]) == 3


def test_the_same_number_makes_the_same_bytes(monkeypatch):
    seen = []
    monkeypatch.setitem(
        fuzz.READERS, "any", (lambda p: seen.append(p.read_bytes()), ".x", [b"a" * 99])
    )
    for _ in range(2):
        fuzz.fuzz("any", 60, most=20)
    assert seen[:20] == seen[20:] and len(set(seen)) > 10
