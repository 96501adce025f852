"""The machinery of tools/gpu_check.py with parts that take no time, and the real ones, tiny."""

import importlib.util
import json
import sys

import pytest

from tests.processes import ROOT

RATE = 0.5  # TFLOP/s of products, so that one of 0.01 s is half as long as predicted


@pytest.fixture
def check(monkeypatch):
    """The tool, on a device of a known rate."""
    spec = importlib.util.spec_from_file_location("gpu_check", ROOT / "tools" / "gpu_check.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    facts = {"name": "A <device>", "memory_GiB": None, "product_TFLOP_per_s": RATE}
    monkeypatch.setattr(module, "describe_device", lambda device: facts)
    return module


def saying(text, code=0):
    """A program that prints a text and ends with a code."""
    return [sys.executable, "-S", "-c", f"print({text!r}); raise SystemExit({code})"]


STEP = {
    "size": "tiny",
    "batch": 100,
    "precision": "no",
    "seconds": {"fast": [0.5, 0.25, 0.1], "plain": [1]},
    "GFLOP_per_clip": {"fast": 0.5},
    "ratio": {"fast": 4.0},
}


def run(check, monkeypatch, folder, words, **commands):
    """Run the tool with other programs; return its exit code and the JSON and page it wrote."""
    for name in check.PARTS:
        command = commands.get(name, saying("1 passed"))
        monkeypatch.setitem(check.PARTS, name, (f"about {name}", command, command))
    monkeypatch.setattr(sys, "argv", ["gpu_check.py", "--cpu", "--out", str(folder), *words])
    code = 0
    try:
        check.main()
    except SystemExit as end:
        code = end.code
    found = json.loads((folder / "gpu_check.json").read_text())
    return code, found, (folder / "gpu_check.html").read_text()


def test_a_part_that_fails_is_said_and_the_others_go_on(check, monkeypatch, tmp_path, capsys):
    commands = {"step": saying("no <memory>", 3), "compile": saying("no json")}
    words = ["--only", "tests", "step", "compile"]
    code, found, page = run(check, monkeypatch, tmp_path, words, **commands)
    parts = found["parts"]
    assert code == 1
    assert {name: part["state"] for name, part in parts.items()} == {
        "tests": "done",
        "step": "failed",
        "compile": "failed",
        "memory": "left out",
        "evaluation": "left out",
    }
    assert parts["step"]["why"] == "ended with 3: no <memory>"
    assert parts["compile"]["why"] == "its last line is no JSON: no json"
    assert "failed: ended with 3: no &lt;memory&gt;" in page and "A &lt;device&gt;" in page
    assert "1 part done, 2 parts failed, 2 parts left out" in page
    assert "step: failed, ended with 3" in capsys.readouterr().out


def test_measured_stands_beside_predicted(check, monkeypatch, tmp_path):
    code, found, page = run(
        check, monkeypatch, tmp_path, ["--only", "step"], step=saying(json.dumps(STEP))
    )
    rows = {row[0]: row[1:] for row in found["parts"]["step"]["rows"]}
    assert code == 0
    assert rows["clips a second"][0] == "400"  # the median step took 0.25 s
    share = rows["share of the rate of products"]
    assert share == ["40.0 %", "goal 55 %", "not reached"]  # 400 x 0.5 GFLOP of 0.5 TFLOP/s
    measured, predicted, ratio = map(float, rows["seconds of a step"])
    assert ratio == pytest.approx(predicted / measured, rel=0.01) and predicted > 0
    assert "<td>40.0 %</td>" in page


def test_figures_that_cannot_be_read_fail_their_part_alone(check, monkeypatch, tmp_path):
    words = ["--only", "step", "tests"]
    code, found, _ = run(check, monkeypatch, tmp_path, words, step=saying("{}"))
    assert code == 1
    assert found["parts"]["step"]["why"] == "its figures: KeyError: 'seconds'"
    assert found["parts"]["tests"]["rows"] == [["pytest", "1 passed", "-", "-"]]


def test_a_part_that_hangs_is_ended_with_all_that_it_started(check, monkeypatch, tmp_path):
    monkeypatch.setattr(check, "parse", lambda: parsed)
    parsed = check.Parser().parse_args([])
    vars(parsed).update(cpu=True, out=tmp_path, only=["tests"], skip=[], minutes=0.005)
    sleeps = [sys.executable, "-S", "-c", "import time; time.sleep(600)"]
    code, found, _ = run(check, monkeypatch, tmp_path, [], tests=sleeps)
    assert code == 1
    assert found["parts"]["tests"]["why"] == "took over 0.005 minutes (--minutes)"


def test_without_a_gpu_one_line_says_so(check, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(check.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu_check.py", "--out", str(tmp_path / "new")])
    with pytest.raises(SystemExit) as end:
        check.run(check.main)
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: there is no CUDA device; ") and said.count("\n") == 1
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_part_runs_at_tiny_sizes(tool, tmp_path):
    code, output, errors = tool("tools/gpu_check.py", "--cpu", "--out", tmp_path, timeout=1700)
    assert code == 0, output + errors
    parts = json.loads((tmp_path / "gpu_check.json").read_text())["parts"]
    assert all(part["state"] == "done" and part["rows"] for part in parts.values())
    assert parts["memory"]["result"]["ran_out"] and parts["memory"]["result"]["deviation"] < 1e-6
