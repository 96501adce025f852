"""Curves of missing modalities of several methods: means over seeds, paired tests, plots."""

import functools
from pathlib import Path

import numpy as np
import pytest

from fusion.evaluation import missing_table
from fusion.evaluation.missing import SHARES, Curves
from fusion.evaluation.missing_table import WAYS, curves_to_arrays, describe_curves
from fusion.report import comparison
from fusion.report.missing import format_missing, missing_section
from fusion.report.missing_compared import compare_missing
from fusion.report.runs import add_arrays
from tests.report.compared import OTHER, SIZE
from tests.report.test_run_page import Page

pytestmark = pytest.mark.usefixtures("no_pictures")


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    """Intervals are drawn 500 times: the tests prove of what, not how finely."""
    for module in (missing_table, comparison):
        draw = functools.partial(module.draw_recalls, draws=500)
        monkeypatch.setattr(module, "draw_recalls", draw)


NAMES = tuple(f"clip{i}" for i in range(SIZE))


def curves(share, ways=WAYS, names=NAMES, direction="t->va", seed=0):
    """Curves that fall from a share to 0, as if each share lost the last clips."""
    draws = np.random.default_rng([seed, round(100 * share)]).random((len(names), 1, 1))
    ends = share * (1 - np.array(SHARES)[:, None] / 100)
    found = (draws < ends).astype(float) * np.ones(4)
    return Curves(direction, len(names), names, np.ones(len(names)), dict.fromkeys(ways, found))


def add(path, modality="audio", **how):
    file = Path(path) / "ranks.npz"
    made = curves(**how)
    file.write_bytes(add_arrays(file.read_bytes(), curves_to_arrays(modality, made)))
    return made


def test_curves_of_methods_are_means_over_seeds_and_tested(compared, capsys):
    one = add(compared.run("eao-0", {"t->va": 0.5}, seed=0), share=0.9)
    backwards = NAMES[::-1]
    two = add(compared.run("eao-1", {"t->va": 0.5}, seed=1), share=0.7, names=backwards, seed=1)
    late = [way for way in WAYS if way.startswith("late")]
    alone = add(compared.run("apart", {"t->v+a": 0.5}, model=OTHER), share=0.3, ways=late)
    section = compared()["missing"]["modalities"]["audio"]
    assert (section["direction"], section["has"]) == ("t->va", SIZE)
    means = (one.found[WAYS[0]] + two.found[WAYS[0]][::-1]) / 2
    way = section["methods"]["eao"]["ways"][WAYS[0]]
    assert way["R@1"] == pytest.approx(100 * means[..., 0].mean(axis=0))
    expected = describe_curves(one._replace(found=dict.fromkeys(WAYS, means)))
    assert way == expected["ways"][WAYS[0]]
    apart = section["methods"]["apart"]
    assert list(apart["ways"]) == late
    test = apart["differences"][f"{late[1]} - eao: fused, left out"]
    ours = 100 * alone.found[late[1]][..., 0].mean(axis=0)
    assert test["R@1"] == pytest.approx(ours - 100 * means[..., 0].mean(axis=0))
    assert test["interval"][0][1] < 0 < test["R@1"][-1] + 1e-9
    assert test["includes_zero"][-1]
    printed = capsys.readouterr().out
    assert f"apart   {late[1]} - eao: fused, left out" in printed
    page = Page((compared.folder / "out/comparison.html").read_text())
    charts = [values["aria-label"] for tag, values in page.elements if tag == "svg" and values]
    assert sum("clips with audio that lose it" in label for label in charts) == 2


def test_methods_without_curves_are_left_out(compared):
    add(compared.run("eao-0", {"t->va": 0.5}, seed=0), share=0.9)
    compared.run("eao-1", {"t->va": 0.5}, seed=1)
    add(compared.run("mcn", {"t->va": 0.5}, model=OTHER), share=0.3)
    comparison = compared()
    section = comparison["missing"]["modalities"]["audio"]
    assert list(section["methods"]) == ["mcn"]
    assert not [name for name in section["methods"]["mcn"]["differences"] if "eao" in name]


def test_without_curves_there_is_no_section(compared):
    for name, how in {"eao": {}, "mcn": {"model": OTHER}}.items():
        compared.run(name, {"t->va": 0.5}, **how)
    assert "missing" not in compared()
    assert "Missing modalities" not in (compared.folder / "out/comparison.html").read_text()


@pytest.mark.parametrize("how", [{"names": ("x", *NAMES[1:])}, {"direction": "va->t"}])
def test_curves_of_other_clips_or_directions_are_not_averaged(compared, how):
    add(compared.run("eao-0", {"t->va": 0.5}, seed=0), share=0.9)
    add(compared.run("eao-1", {"t->va": 0.5}, seed=1), share=0.9, **how)
    compared.run("mcn", {"t->va": 0.5}, model=OTHER)
    compared.refused("cannot be averaged: clips that lose audio differ, or the direction")


def test_methods_of_another_direction_are_not_in_one_plot(compared):
    add(compared.run("eao", {"t->va": 0.5}), share=0.9)
    add(compared.run("mcn", {"t->va": 0.5}, model=OTHER), share=0.9, direction="va->t")
    assert list(compared()["missing"]["modalities"]["audio"]["methods"]) == ["eao"]


def test_a_result_is_written_for_terminals_and_pages():
    section = {"rule": "the rule", "modalities": {"audio": describe_curves(curves(0.9))}}
    lines = format_missing(section)
    assert lines[0] == "curves    the rule"
    assert lines[4].split() == ["way", "0", "%", "30", "%", "60", "%", "90", "%", "100", "%"]
    page = missing_section(section)
    assert page.count("<svg") == 1
    assert "+0.0 ~" in page
    assert missing_section(None) == ""
    assert compare_missing([], "eao") is None
