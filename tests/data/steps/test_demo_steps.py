"""The built-in corpus as films with steps, and what a perfect perceiver knows of them."""

import itertools

import numpy as np
import pytest

from fusion.data.demo.perceiver import perceive
from fusion.data.demo.versions import plan_corpus
from fusion.data.steps.annotation import StepError
from fusion.data.steps.demo import demo_steps, perceive_film
from fusion.evaluation.localisation import assign_best, assign_in_order
from fusion.evaluation.localisation.ceiling import perceiver_recall
from fusion.modalities import Direction


@pytest.fixture(scope="module")
def source():
    return demo_steps(films=2)


def test_steps_are_sentences_in_order_and_some_scenes_are_background(source):
    clips = source.clips("test")
    assert len(clips.films) == 2
    for film, (planned, kept) in zip(clips.films, source.planned["test"], strict=True):
        assert film.video == planned.path
        assert len(film.steps) == len(planned.scenes) - 3 == len(kept)
        assert list(film.steps) == [planned.scenes[i].text for i in kept]
        starts = [interval.start for interval in film.intervals]
        assert starts == sorted(starts)
        assert [interval.step for interval in film.intervals] == list(range(len(kept)))
    assert "3 of 8 scenes of a film are background" in source.describe("test")
    again = demo_steps(films=2).planned["test"]
    assert [kept for _, kept in again] == [kept for _, kept in source.planned["test"]]


def test_background_leaves_a_step(source):
    with pytest.raises(StepError, match="data.background is 8; a film has 8 scenes"):
        demo_steps(films=2, background=8)


def test_what_a_perceiver_knows_in_order_is_that_of_all_orders(source):
    film, kept = source.planned["test"][0]
    way = Direction(("t",), ("v",))
    known = perceive_film(film, kept, way)
    ratios = perceive(film.scenes).likelihood_ratios("t", "v")[list(kept)]
    shares, total = np.zeros(ratios.shape), 0.0
    for order in itertools.combinations(range(len(film.scenes)), len(kept)):
        weight = float(np.prod([ratios[k, scene] for k, scene in enumerate(order)]))
        total += weight
        for k, scene in enumerate(order):
            shares[k, scene] += weight
    assert known.in_order == pytest.approx(shares / total, abs=1e-12)
    assert known.alone == pytest.approx(ratios / ratios.sum(axis=1, keepdims=True), abs=1e-12)
    assert known.right == kept


def test_more_modalities_and_order_never_hurt_a_perceiver():
    films = [film for film in plan_corpus() if film.split == "test"][3:11]
    recalls = {}
    for gallery in (("v",), ("a",), ("va",), ("v", "a")):
        values = []
        for film in films:
            known = perceive_film(film, (0, 2, 3, 5, 7), Direction(("t",), gallery))
            about = (known.scenes, known.right, 24, 1.0)
            alone = perceiver_recall(known.alone, *about, assign_best)
            values.append([alone, perceiver_recall(known.in_order, *about, assign_in_order)])
        recalls["+".join(gallery)] = np.mean(values, axis=0)
    for alone, ordered in recalls.values():
        assert ordered >= alone > 0.3
    assert recalls["va"][0] > recalls["v+a"][0] > max(recalls["v"][0], recalls["a"][0])


def test_who_knows_all_finds_all():
    scenes = [(0.0, 3.0), (3.0, 6.0), (6.0, 9.0)]
    shares = np.eye(3)[[0, 2]]
    for assign in (assign_best, assign_in_order):
        assert perceiver_recall(shares, scenes, [0, 2], 9, 1.0, assign) == 1.0
    even = np.full((1, 3), 1 / 3)
    assert 0.2 < perceiver_recall(even, scenes, [1], 9, 1.0, assign_best) < 0.5
