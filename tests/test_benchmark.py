import json
import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(["step", "--size", "tiny", "--batch", "4"], marks=pytest.mark.slow),
        pytest.param(
            ["step", "--size", "tiny", "--batch", "4", "--no-davenet", "--precision", "bf16"],
            marks=pytest.mark.slow,
        ),
        ["loss", "--batch", "512", "--width", "8"],
        pytest.param(
            ["loss", "--kind", "mcn", "--batch", "600", "--width", "8"], marks=pytest.mark.slow
        ),
        pytest.param(
            ["memory", "--chunk", "2", "--doublings", "2"],
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ["evaluate", "--size", "tiny", "--batch", "4", "--gallery", "100"],
            marks=pytest.mark.slow,
        ),
    ],
    ids=" ".join,
)
def test_the_last_line_is_json_with_a_ratio(tool, words):
    code, output, errors = tool("tools/benchmark.py", *words, "--repeats", "1")
    assert code == 0, errors
    result = json.loads(output.splitlines()[-1])
    assert result["command"] == words[0]
    assert result["ratio"]
    assert [len(seconds) for seconds in result["seconds"].values()] == [1, 1]


@pytest.mark.slow
def test_guards_and_manifests_are_measured_beside_the_step(tool):
    words = ["safety", "--size", "tiny", "--batch", "4", "--repeats", "1"]
    code, output, errors = tool("tools/benchmark.py", *words)
    assert code == 0, errors
    result = json.loads(output.splitlines()[-1])
    assert result["share_of_training"]["together"] > 0
    assert result["seconds"].keys() == {"step", "look", "check", "write", "manifest", "verify"}


@pytest.mark.slow
def test_a_store_is_measured_against_whole_files(tool):
    words = ["store", "--videos", "2", "--seconds", "20", "--repeats", "1"]
    code, output, errors = tool("tools/benchmark.py", *words)
    assert code == 0, errors
    result = json.loads(output.splitlines()[-1])
    assert result["ratio"] > 0
    assert result["cold"] is None or result["cold"]["store"]["of_bytes_used"] >= 1


@pytest.mark.slow
def test_needed_frames_are_measured_against_every_frame(tool):
    words = ["video", "--seconds", "4", "--lengths", "1", "--clips", "2", "--repeats", "1"]
    words += ["--size", "32", "--network", "test_resnet", "--batch", "1"]
    code, output, errors = tool("tools/benchmark.py", *words)
    assert code == 0, errors
    result = json.loads(output.splitlines()[-1])
    assert len(result["reading"]) == 3 and [*result["networks"]] == [
        "4 frames",
        "8 frames",
        "16 frames",
    ]
    for found in result["reading"].values():
        assert found["frames_decoded"]["needed"] <= found["frames_decoded"]["every frame"]
    for found in result["networks"].values():
        assert found["gflop_per_clip"]["tsm"] == found["gflop_per_clip"]["plain"]


@pytest.mark.slow
def test_processes_are_measured(tool):
    words = ["scaling", "--processes", "2", "--batch", "8", "--repeats", "1"]
    code, output, errors = tool("tools/benchmark.py", *words)
    assert code == 0, errors
    result = json.loads(output.splitlines()[-1])["processes"]
    assert [*result] == ["1", "2"] and result["1"]["efficiency"] == 1
    assert (result["2"]["votes"], result["2"]["by_kind"]["gather"]) == (2, 4)
    for found in result.values():
        assert sum(found["shares"].values()) == pytest.approx(1)
        assert {*found["shares"]} == {"reading", "arithmetic", "communication", "waiting"}


@pytest.mark.slow
def test_engines_are_measured_against_the_exact_one(tool):
    words = ["search", "--clips", "1000", "--width", "16", "--queries", "3"]
    code, output, errors = tool("tools/benchmark.py", *words)
    assert code == 0, errors
    result = json.loads(output.splitlines()[-1])["1000_clips"]
    for engine in ("exact", "faiss"):
        assert result[engine]["recall@10"] == {"clips": 1, "words": 1}
        assert result[engine]["ms_p95"] >= result[engine]["ms_p50"] > 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["step", "--fill", "1.5"], "argument --fill: must be above 0 and at most 1; got 1.5"),
        (["loss", "--batch", "0"], "must be a whole number and at least 1; got 0"),
        (["speed"], "invalid choice: 'speed'"),
        ([], "required: {step,"),
    ],
    ids=str,
)
def test_wrong_words_are_explained(words, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["benchmark.py", *words])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / "tools/benchmark.py"), run_name="__main__")
    assert end.value.code == 2
    assert message in capsys.readouterr().err
