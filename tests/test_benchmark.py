import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from fusion.models.tsm import TSM
from tools import benchmark
from tools.benchmarks import gallery, loss, video
from tools.benchmarks.inflated import KINDS, Inflated

ROOT = Path(__file__).parents[1]
NETWORK = {"block": "basic", "layers": [1, 1, 1, 1], "widths": [8, 8, 8, 8]}


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(["step", "--size", "tiny", "--batch", "4"], marks=pytest.mark.slow),
        pytest.param(
            ["step", "--size", "tiny", "--batch", "4", "--no-davenet", "--precision", "bf16"],
            marks=pytest.mark.slow,
        ),
        pytest.param(["loss", "--batch", "512", "--width", "8"], marks=pytest.mark.slow),
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


def test_losses_are_measured_in_this_process(monkeypatch, capsys):
    """As above, but for the memory, for which new processes import torch: that takes seconds."""
    monkeypatch.setattr(loss, "peak_bytes", lambda *_, device: 2**20)
    words = ["benchmark.py", "loss", "--batch", "64", "--width", "8", "--repeats", "1"]
    monkeypatch.setattr(sys, "argv", words)
    benchmark.main()
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["command"] == "loss" and result["ratio"] and result["memory_ratio"] == 1
    assert [len(seconds) for seconds in result["seconds"].values()] == [1, 1]
    assert result["peak_MiB"] == {"plain": 1, "fast": 1}


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
    words = ["reading", "--seconds", "4", "--lengths", "1", "--clips", "2", "--repeats", "1"]
    code, output, errors = tool("tools/benchmark.py", *words, "--films", "4")
    assert code == 0, errors
    result = json.loads(output.splitlines()[-1])
    assert len(result["reading"]) == 3 and len(result["reading_share"]) == 3
    assert all(0 < share < 1 for share in result["reading_share"].values())
    for found in result["reading"].values():
        assert found["frames_decoded"]["needed"] <= found["frames_decoded"]["every frame"]


@pytest.mark.slow
def test_networks_of_films_are_compared(tool):
    words = ["video", "--size", "32", "--network", "resnet18", "--repeats", "1"]
    code, output, errors = tool("tools/benchmark.py", *words)
    assert code == 0, errors
    result = json.loads(output.splitlines()[-1])
    assert result["paper"]["parameters"] == 24_327_632
    assert round(result["paper"]["gflop_per_clip"], 1) == 65.4
    rows = result["rows"]
    assert len(rows) == 12
    for frames in (4, 8, 16):
        plain, tsm = rows[f"{frames} frames, plain"], rows[f"{frames} frames, tsm"]
        for key in ("gflop_per_clip", "parameters", "gradient_bytes"):
            assert tsm[key] == plain[key]
        assert rows[f"{frames} frames, 3d, all"]["gflop_per_clip"] > tsm["gflop_per_clip"]


@pytest.mark.slow
def test_plans_are_held_against_steps(tool):
    code, output, errors = tool("tools/benchmark.py", "plan", "--repeats", "1", "--batch", "2")
    assert code == 0, errors
    rows = json.loads(output.splitlines()[-1])["rows"]
    for way in ("by_operations", "by_work"):
        assert len(rows) == 7 and all(row[way] > 0 for row in rows.values())
        firsts = [rows[name][way] for name in ("tsm", "eao")]
        assert firsts == pytest.approx([1, 1], rel=1e-12)  # they are what others are compared to


@pytest.mark.slow
def test_a_film_is_watched_in_constant_memory(tool):
    words = ["watch", "--minutes", "1", "--network", "test_resnet", "--size", "32"]
    code, output, errors = tool("tools/benchmark.py", *words)
    assert code == 0, errors
    result = json.loads(output.splitlines()[-1])
    found, deviation = result["1 minutes"], result["deviation_from_offline"]
    assert found["frames"] == 480 and found["cpu_ms_p95"] >= found["cpu_ms_p50"] > 0
    assert deviation["largest"] <= 1e-4 * deviation["of"]


@pytest.mark.parametrize("kind", KINDS)
def test_an_inflated_network_says_of_a_still_film_what_the_plain_one_says(kind):
    torch.manual_seed(0)
    plain = TSM(NETWORK, 3, shift=False).eval()
    torch.manual_seed(0)
    inflated = Inflated(NETWORK, 3, kind).eval()
    for part in [*plain.modules(), *inflated.modules()]:
        if isinstance(part, torch.nn.modules.batchnorm._BatchNorm):
            torch.nn.init.ones_(part.weight)  # the last of a block begins at 0: it does nothing
    still = torch.randn(1, 1, 3, 32, 32).expand(1, 25, 3, 32, 32)
    net = inflated.net
    with torch.no_grad():
        expected = plain.features(still)[0]
        x = net.maxpool(net.act1(net.bn1(net.conv1(still.transpose(1, 2)))))
        x = net.layer4(net.layer3(net.layer2(net.layer1(x))))
        found = x.mean(dim=(3, 4))[0].T
    torch.testing.assert_close(found[12], expected[12], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(found[0], expected[0], rtol=1e-4, atol=1e-5)  # sees beyond the film


def test_an_inflated_network_has_three_times_the_arithmetic_where_it_is_inflated():
    clip = torch.zeros(1, 4, 3, 64, 64)

    def flop(model):
        return video.forward_flop(model, clip)

    plain, first, all_of_them = (
        flop(TSM(NETWORK, 2)),
        *(flop(Inflated(NETWORK, 2, kind)) for kind in KINDS),
    )
    sides = (16, 8, 4, 2)  # of the pictures of the four stages
    conv1 = sum(2 * 4 * side**2 * 8 * 8 * 9 for side in sides)
    stem = 2 * 4 * 32**2 * 3 * 8 * 49
    heads = 2 * 4 * 8 * 2, 2 * 8 * 2  # TSM classifies each frame, the other the mean of them
    assert first - plain == 2 * conv1 + heads[1] - heads[0]
    assert all_of_them - plain == 2 * (2 * conv1 + stem) + heads[1] - heads[0]


@pytest.mark.slow
def test_processes_are_measured(tool):
    words = ["scaling", "--processes", "2", "--batch", "8", "--repeats", "1"]
    code, output, errors = tool("tools/benchmark.py", *words)
    assert code == 0, errors
    result = json.loads(output.splitlines()[-1])["processes"]
    assert [*result] == ["1", "2"] and result["1"]["efficiency"] == 1
    assert (result["2"]["votes"], result["2"]["by_kind"]["gather"]) == (2, 4)
    assert output.startswith("processes  clips/s") and result["2"]["cpu_ratio"] > 0
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


def test_ranks_of_versions_are_compared(tmp_path):
    ways = {"t->v": np.arange(1.0, 9), "v->t": np.ones(2)}
    files = [tmp_path / f"{name}.npz" for name in "abc"]
    np.savez(files[0], **ways)
    np.savez(files[1], **ways)
    np.savez(files[2], **ways | {"t->v": np.arange(1.0, 9) + np.eye(8)[3] * 2.5})
    assert gallery.compare_ranks(files[:1]) == {}
    same = {"other_ranks_percent": 0.0, "places_apart_at_most": 0.0}
    assert gallery.compare_ranks(files[:2]) == same
    # One of the 20 ranks of two files beside the first.
    other = {"other_ranks_percent": 5.0, "places_apart_at_most": 2.5}
    assert gallery.compare_ranks(files) == other
