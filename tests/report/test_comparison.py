"""Statistics of a comparison against naive loops."""

import numpy as np
import pytest

from fusion.evaluation.metrics import (
    draw_recalls,
    draw_seeds,
    interval_of,
    interval_over_clips,
    paired_test,
)
from tests.report.compared import Compared


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


def test_drawn_seeds_are_those_of_a_naive_loop_and_the_same_for_all_rows():
    draw = np.random.default_rng(0)
    recalls = draw.random((200, 3, 2))
    drawn = np.random.default_rng(4).integers(3, size=(200, 2))
    naive = [[recalls[d, drawn[d], k].mean() for k in range(2)] for d in range(200)]
    np.testing.assert_allclose(draw_seeds(recalls, seed=4), naive)
    np.testing.assert_array_equal(draw_seeds(recalls[:, :1]), recalls[:, 0])


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_the_variance_of_drawn_seeds_is_that_of_their_mean(seeds):
    values = np.random.default_rng(seeds).normal(size=seeds)
    means = draw_seeds(np.broadcast_to(values[:, None], (40_000, seeds, 1)))
    assert means.var() == pytest.approx(values.var(ddof=1) / seeds, rel=0.05)


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


def test_without_text_to_video_and_audio_there_is_no_headline(tmp_path):
    compared = Compared(tmp_path)
    compared.run("one", {"t->v": 0.5})
    compared.run("two", {"t->v": 0.4}, model={"num_heads": 4})
    comparison = compared()
    assert comparison["methods"]["one"]["headline"] is None
    page = (tmp_path / "out" / "comparison.html").read_text()
    assert "Comparison of methods" in page
    assert "own way" not in page and "t->va or t->v+a" not in page
