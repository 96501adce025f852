"""The scores of a perfect perceiver, against a simulation of it."""

import dataclasses

import numpy as np
import pytest

from fusion.data.demo.perceiver import CUTOFFS, ceilings
from fusion.data.demo.plan import plan_corpus
from fusion.data.demo.sentences import ATTRIBUTES, AUDIBLE, VISIBLE


@pytest.fixture(scope="module")
def films():
    """A few clips with many ties, one black, one silent, one that leaves out its colour."""
    plan = [film for film in plan_corpus(4) if film.split == "test"]
    values = plan[0].scenes[0].values
    near = {a: options[0] for a, options in ATTRIBUTES.items()}
    scenes = [
        dataclasses.replace(scene, values=near | {"timbre": values["timbre"]}, unsaid=())
        for scene in plan[0].scenes[:3]
    ]
    scenes += plan[0].scenes[3:]
    scenes[1] = dataclasses.replace(scenes[1], has_picture=False)
    scenes[2] = dataclasses.replace(scenes[2], unsaid=("colour",))
    scenes[3] = dataclasses.replace(scenes[3], has_sound=False)
    return [dataclasses.replace(plan[0], scenes=tuple(scenes)), *plan[1:]]


def known(film, scene, combination):
    """What a combination of modalities tells about a clip; None if it has none of them."""
    streams = {"t": True, "v": film.has_video_stream, "a": film.has_audio_stream}
    if not any(streams[m] for m in combination):
        return None
    told = set()
    if "t" in combination:
        told |= set(ATTRIBUTES) - set(scene.unsaid)
    if "v" in combination and scene.has_picture:
        told |= set(VISIBLE)
    if "a" in combination and scene.has_sound:
        told |= set(AUDIBLE)
    return {a: scene.values[a] for a in told}


def score(query, candidate):
    value = 1
    for attribute, values in ATTRIBUTES.items():
        if attribute in query and attribute in candidate:
            value *= len(values) if query[attribute] == candidate[attribute] else 0
    return value


def simulate(films, query, candidate, rounds, rng):
    clips = [(film, scene) for film in films for scene in film.scenes]
    pairs = [(known(f, s, query), known(f, s, candidate)) for f, s in clips]
    pairs = [pair for pair in pairs if None not in pair]
    ranks = np.empty((rounds, len(pairs)))
    for i, (q, right) in enumerate(pairs):
        scores = np.array([score(q, c) for _, c in pairs])
        coins = rng.random((rounds, len(pairs)))
        mine = coins[:, [i]]
        ahead = (scores > score(q, right)) | ((scores == score(q, right)) & (coins < mine))
        ranks[:, i] = 1 + ahead.sum(axis=1)
    recalls = {f"R@{k}": 100 * (ranks <= k).sum(axis=1).mean() / len(clips) for k in CUTOFFS}
    return recalls | {"MeanR": ranks.mean(), "MedR": np.median(ranks.mean(axis=0))}


PAIRS = ["t v", "t a", "t va", "v t", "v a", "v ta", "a t", "a v", "a tv", "va t", "ta v", "tv a"]


@pytest.mark.parametrize(("query", "candidate"), [pair.split() for pair in PAIRS])
def test_scores_are_those_of_a_simulation(films, query, candidate):
    expected = simulate(films, query, candidate, 4000, np.random.default_rng(0))
    found = ceilings(films)[f"{query}->{candidate}"]
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1.0 if "@" in name else 0.25), name


def test_there_are_twelve_directions_and_late_averages_score_the_same(films):
    scores = ceilings(films)
    assert len(scores) == 18
    assert scores["t->v+a"] == scores["t->va"]
    assert scores["t+v->a"] == scores["tv->a"]


def test_both_senses_know_nearly_all_and_each_alone_does_not():
    scores = ceilings([film for film in plan_corpus() if film.split == "test"])
    assert scores["t->va"]["R@1"] > 90
    assert 20 < scores["t->v"]["R@1"] < 40
    assert 5 < scores["t->a"]["R@1"] < 10
    assert scores["v->a"]["R@1"] == pytest.approx(100 / 540)
