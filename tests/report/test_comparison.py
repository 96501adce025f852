"""Statistics of a comparison against naive loops, and the picture."""

import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from fusion.evaluation.bootstrap import (
    draw_recalls,
    interval_of,
    interval_over_clips,
    paired_test,
)
from fusion.report.bars import WIDTH, comparison_picture
from fusion.report.comparison import OWN_WAY
from tests.report.compared import Compared
from tests.report.test_run_page import ATTACK


def naive_recalls(hits, asked, draws, seed):
    """One draw at a time, one clip at a time."""
    generator, recalls = np.random.default_rng(seed), []
    for _ in range(draws):
        found = queries = 0.0
        for clip in generator.integers(len(hits), size=len(hits)):
            found += hits[clip]
            queries += asked[clip]
        recalls.append(100 * found / queries)
    return recalls


def two_methods(size=25, draws=350):  # more draws than a block has
    generator = np.random.default_rng(5)
    asked = generator.integers(1, 4, (size, 1)).repeat(2, axis=1)
    hits = generator.integers(0, asked + 1) / np.array([1.0, 3.0])  # whole, and a mean over seeds
    naive = [naive_recalls(hits[:, k], asked[:, k], draws, seed=3) for k in range(2)]
    return draw_recalls(hits, asked, draws, seed=3), np.array(naive).T


def test_draws_are_those_of_a_naive_loop():
    fast, naive = two_methods()
    assert fast.shape == (350, 2)
    np.testing.assert_allclose(fast, naive, rtol=1e-12)


def test_p_and_interval_are_those_of_a_naive_loop():
    fast, naive = two_methods()
    test = paired_test(fast[:, 0], fast[:, 1])
    differences = sorted(ours - theirs for ours, theirs in naive)
    below = sum(d <= 0 for d in differences)
    above = sum(d >= 0 for d in differences)
    assert test["p"] == min(1, 2 * (min(below, above) + 1) / 351)
    for bound, share in zip(test["interval"], (0.025, 0.975), strict=True):
        place = share * 349
        low, high = differences[int(place)], differences[int(place) + 1]
        assert bound == pytest.approx(low + (place - int(place)) * (high - low), abs=1e-6)


def test_draws_of_one_method_are_as_wide_as_the_interval_of_its_own_table():
    clips = np.repeat(np.arange(60), 3)
    ranks = np.where(np.random.default_rng(0).random(180) < 0.4, 1.0, 5.0)
    hits = np.bincount(clips[ranks == 1], minlength=60)[:, None]
    ours = interval_of(draw_recalls(hits, np.full((60, 1), 3.0))[:, 0])
    assert ours == pytest.approx(interval_over_clips(ranks, clips, clips), abs=1.5)


def test_methods_that_are_the_same_do_not_differ():
    third = np.full((40, 1), 1 / 3)
    same = draw_recalls(np.hstack([third, third + 1e-16]), np.ones((40, 2)), draws=50)
    assert paired_test(*same.T) == {"interval": [0.0, 0.0], "p": 1.0, "includes_zero": True}


def test_a_difference_in_every_draw_has_the_least_p_there_is():
    test = paired_test(np.full(999, 50.0), np.full(999, 40.0))
    assert test == {"interval": [10.0, 10.0], "p": 0.002, "includes_zero": False}
    assert paired_test(np.full(999, 40.0), np.full(999, 50.0))["p"] == 0.002


@pytest.fixture
def picture(tmp_path):
    compared = Compared(tmp_path)
    compared.run("eao-0", {"t->v": 0.5, "t->va": 0.8}, seed=0)
    compared.run("eao-1", {"t->v": 0.4, "t->va": 0.7}, seed=1)
    name = f"A name that is {ATTACK}"
    compared.run("mcn", {"t->v": 0.1, "t->v+a": 0.3}, name=name, model={"num_heads": 4})
    return ElementTree.fromstring(comparison_picture(compared()))


def texts(picture):
    return ["".join(text.itertext()) for text in picture.iter() if text.tag.endswith("}text")]


def test_the_picture_has_a_panel_for_each_direction_that_any_method_has(picture):
    heads = [t.text for t in picture.iter() if t.get("class") == "head"]
    assert heads == ["text → video and audio", "t → v+a", "t → v"]
    ends = [float(t.get("x")) for t in picture.iter() if (t.text or "").startswith("chance")]
    assert ends[0] == ends[2] > WIDTH * 0.9  # the headline is as wide as two panels
    assert ends[1] < WIDTH / 2
    bars = [r for r in picture.iter() if "var(--c" in r.get("fill", "")]
    assert len(bars) == 2 + 1 + 2
    assert len([c for c in picture.iter() if c.get("class") == "seed"]) == 2 * 2
    assert len([c for c in picture.iter() if c.get("class") == "chance"]) == 3
    assert texts(picture).count("t → va") == 1
    assert texts(picture).count("t → v+a") == 2  # of a method, and of a panel
    assert texts(picture).count("none") == 1


def test_nothing_of_the_picture_is_outside_of_it_or_in_the_way(picture):
    height = float(picture.get("viewBox").split()[3])
    for element in picture.iter():
        for name, most in {"x": WIDTH, "x1": WIDTH, "x2": WIDTH, "y": height, "y1": height}.items():
            assert 0 <= float(element.get(name, 0)) <= most
    panels = [group for group in picture.iter() if group.tag.endswith("}g")]
    for panel in panels:
        bars = [float(r.get("x")) for r in panel.iter() if "var(--c" in r.get("fill", "")]
        ways = [
            float(t.get("x")) - 7 * len(t.text)
            for t in panel.iter()
            if t.get("class") == "quiet" and t.get("text-anchor") == "end" and t.text[0] == "t"
        ]
        names = [t for t in panel.iter() if t.tag.endswith("}text") and len(t)]
        assert len(names) == 2
        for text in names:  # about 8 units a letter
            assert float(text.get("x")) + 8 * len(text[0].tail) < min(bars + ways)


def test_a_longer_bar_is_a_higher_recall_on_the_scale_of_its_panel(picture):
    panel = next(g for g in picture.iter() if g.tag.endswith("}g"))
    bars = [r for r in panel.iter() if "var(--c" in r.get("fill", "")]
    labels = [t for t in panel.iter() if t.get("text-anchor") == "middle"]
    start, end = float(labels[0].get("x")), float(labels[-1].get("x"))
    per_unit = float(labels[-1].text) / (end - start)
    assert [float(r.get("width")) * per_unit for r in bars] == pytest.approx([75, 30], abs=0.2)


def test_the_picture_is_readable_in_light_and_dark_by_itself(picture):
    style = next(e.text for e in picture.iter() if e.tag.endswith("}style"))
    used = set(re.findall(r"var\((--\w+)\)", ElementTree.tostring(picture, encoding="unicode")))
    light, dark = style.split("prefers-color-scheme: dark")
    assert {"--paper", "--ink", "--c0", "--c1"} <= used
    assert all(f"{name}:" in light and f"{name}:" in dark for name in used)


def test_without_text_to_video_and_audio_there_is_no_headline(tmp_path):
    compared = Compared(tmp_path)
    compared.run("one", {"t->v": 0.5})
    compared.run("two", {"t->v": 0.4}, model={"num_heads": 4})
    comparison = compared()
    assert comparison["methods"]["one"]["headline"] is None
    assert "own way" not in comparison_picture(comparison)
    page = (tmp_path / "out" / "comparison.html").read_text()
    assert "Methods beside one another" in page
    assert OWN_WAY not in page
