"""Mistakes on a command line name what was meant, whichever tool it is."""

import runpy
import sys

import pytest

from tests.conftest import ROOT

TOOLS = sorted(path.name for path in (ROOT / "tools").glob("*.py"))


@pytest.fixture
def mistake(monkeypatch, capsys):
    def run(tool, *words):
        monkeypatch.setattr(sys, "argv", [tool, *map(str, words)])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(ROOT / "tools" / tool), run_name="__main__")
        assert end.value.code == 2
        return capsys.readouterr().err

    return run


def test_every_tool_has_the_same_parser():
    assert len(TOOLS) == 23
    for tool in TOOLS:
        text = (ROOT / "tools" / tool).read_text()
        assert "parser = Parser(" in text or "import call" in text, tool


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["compare.py", "a", "b", "--baselin", "a"], "--baselin: did you mean --baseline?"),
        (["evaluate.py", "run", "--jsn=x"], "--jsn: did you mean --json?"),
        (["extract.py", "films", "--ouput", "x"], "--ouput: did you mean --out?"),
        (["benchmark.py", "step", "--fil", "1"], "--fil: did you mean --fill?"),
        (["train.py", "c.yaml", "--output=x"], "written key=value, without dashes"),
    ],
    ids=str,
)
def test_options_are_written_in_full_and_suggested(mistake, words, meant):
    assert meant in mistake(*words)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train.py"], "are required: config\n  config: YAML file"),
        (["convert.py", "README.md"], "are required: --out\n  --out: for a model: a folder"),
        (["convert.py", "README.md", "--out", "x"], "README.md is no file of PyTorch but of an un"),
        (["train.py", "configs"], "configs is a folder; name a config, a .yaml file"),
        (["train.py", "configs/eao.yaml", "output=README.md"], "output=README.md is a file"),
        (["train.py", "configs/eao.yaml", "output=README.md/a"], "is a file, or lies in one"),
        (["extract.py", "a", "--out", "b", "--workers", "0"], "at least 1; got 0"),
        (["extract.py", "a", "--out", "b", "--workers", "two"], "at least 1; got two"),
        (["extract.py", "a", "--out", "b", "--max-bad", "5"], "between 0 and 1; got 5"),
        (["extract.py", "a", "--out", "b", "--time-limit", "0"], "above 0; got 0"),
        (
            ["extract.py", "README.md", "--out", "b", "--weights-2d", "MISSING"],
            "error: --weights-2d MISSING: there is no such file; check the path",
        ),
    ],
    ids=str,
)
def test_mistakes_are_explained(mistake, monkeypatch, words, said):
    monkeypatch.chdir(ROOT)
    assert said in mistake(*words)
