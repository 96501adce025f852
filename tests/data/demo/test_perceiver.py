"""The scores of a perfect perceiver, against a simulation of it that enumerates all worlds."""

import dataclasses
import functools
import itertools

import numpy as np
import pytest

from fusion.data.demo.cutaways import PLACES
from fusion.data.demo.perceiver import CUTOFFS, ceilings
from fusion.data.demo.plan import seen_of
from fusion.data.demo.sentences import ATTRIBUTES, AUDIBLE, VISIBLE
from fusion.data.demo.versions import RECIPES, plan_corpus
from fusion.modalities import directions


def hard_films(version):
    """A few clips with many ties, one black, one silent, one that leaves out its colour.

    One film has no sound, one no picture.
    """
    plan = [film for film in plan_corpus(4, version) if film.split == "test"]
    values = plan[0].scenes[0].values
    near = {a: options[0] for a, options in ATTRIBUTES.items()}
    near |= {"timbre": values["timbre"]}
    scenes = [
        dataclasses.replace(scene, values=near, unsaid=(), shots=with_thing(scene, near))
        for scene in plan[0].scenes[:3]
    ]
    scenes += plan[0].scenes[3:]
    scenes[1] = dataclasses.replace(scenes[1], has_picture=False)
    scenes[2] = dataclasses.replace(scenes[2], unsaid=("colour",))
    scenes[3] = dataclasses.replace(scenes[3], has_sound=False)
    return [dataclasses.replace(plan[0], scenes=tuple(scenes)), *plan[1:]]


def with_thing(scene, values):
    """Replace what is seen of the shot that is spoken of."""
    return tuple(
        dataclasses.replace(shot, values=seen_of(values)) if shot.place == scene.place else shot
        for shot in scene.shots
    )


FILMS = {version: hard_films(version) for version in RECIPES}
CLIPS = {v: [(f, s) for f in films for s in f.scenes] for v, films in FILMS.items()}


def has(film, modality):
    return {"t": True, "v": film.has_video_stream, "a": film.has_audio_stream}[modality]


def told(scene):
    """Which attributes the sentence tells, and the place if it does."""
    values = {a: scene.values[a] for a in ATTRIBUTES if a not in scene.unsaid}
    return values | ({"place": scene.place} if scene.says_place else {})


def heard(scene):
    if not scene.has_sound:
        return {}
    return {a: scene.values[a] for a in AUDIBLE} | {"place": scene.place}


def shown(shot):
    return dict(shot.values) | {"place": shot.place}


def likelihood(text, video, audio):
    """P(what these modalities of one clip tell); None for those that are not looked at.

    A world is: which of the shots is meant, the value of each attribute that is spoken of, where
    this is. All are equally likely; the other shot is of any thing, and at the other place.
    """
    shots = video.shots if video is not None and video.has_picture else ()
    clear = [told(text)] if text is not None else []
    clear += [heard(audio)] if audio is not None else []
    total = 0.0
    for meant in range(max(len(shots), 1)):
        evidence = clear + [shown(shot) for n, shot in enumerate(shots) if n == meant]
        chance = 1.0
        for attribute, values in (ATTRIBUTES | {"place": places_of(text, video, audio)}).items():
            fits = [all(e.get(attribute, value) == value for e in evidence) for value in values]
            chance *= sum(fits) / len(values)
        for n, other in enumerate(shots):
            if n != meant:
                assert other.place != shots[meant].place
                chance /= np.prod([len(values) for values in VISIBLE.values()])
        total += chance / max(len(shots), 1)
    return total


def places_of(*scenes):
    return PLACES if any(scene is not None and scene.place for scene in scenes) else ("",)


@functools.cache
def ratio(version, query, i, gallery, j):
    """P(query of clip i and gallery of clip j are of one clip) / (P(query) P(gallery))."""
    clips = CLIPS[version]

    def chance(**of):
        return likelihood(*(clips[of[m]][1] if m in of else None for m in "tva"))

    left, right = dict.fromkeys(query, i), dict.fromkeys(gallery, j)
    return round(chance(**left, **right) / chance(**left) / chance(**right), 9)


def score(version, direction, i, j):
    """The product over the sides that are averaged: perceivers of their own."""
    pairs = itertools.product(direction.query, direction.gallery)
    return round(np.prod([ratio(version, q, i, g, j) for q, g in pairs]), 9)


def simulate(version, direction, rounds, rng):
    clips = CLIPS[version]
    sides = ["".join(side) for side in (direction.query, direction.gallery)]
    ranked = [
        n
        for n, (film, _) in enumerate(clips)
        if all(any(has(film, m) for m in side) for side in sides)
    ]
    ranks = np.empty((rounds, len(ranked)))
    for place, i in enumerate(ranked):
        scores = np.array([score(version, direction, i, j) for j in ranked])
        coins = rng.random((rounds, len(ranked)))
        right, mine = scores[place], coins[:, [place]]
        ahead = (scores > right) | ((scores == right) & (coins < mine))
        ranks[:, place] = 1 + ahead.sum(axis=1)
    recalls = {f"R@{k}": 100 * (ranks <= k).sum(axis=1).mean() / len(clips) for k in CUTOFFS}
    return recalls | {"MeanR": ranks.mean(), "MedR": np.median(ranks.mean(axis=0))}


DIRECTIONS = {str(one): one for one in directions(["text", "video", "audio"])}


@pytest.mark.parametrize("version", RECIPES)
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_scores_are_those_of_a_simulation(version, direction):
    expected = simulate(version, DIRECTIONS[direction], 4000, np.random.default_rng(0))
    found = ceilings(FILMS[version])[direction]
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1.0 if "@" in name else 0.25), name


def test_if_sight_and_sound_are_independent_late_averages_score_the_same():
    scores = ceilings(FILMS[2])
    assert len(scores) == 18
    assert scores["t->v+a"] == scores["t->va"]
    assert scores["t+v->a"] == scores["tv->a"]


@functools.cache
def ceilings_of_the_test(version):
    return ceilings([film for film in plan_corpus(version=version) if film.split == "test"])


def test_the_ceilings_of_version_2_are_those_of_before():
    scores = {direction: of["R@1"] for direction, of in ceilings_of_the_test(2).items()}
    found = {direction: round(value, 1) for direction, value in scores.items()}
    assert {d: found[d] for d in ("t->v", "t->a", "v->t", "a->t", "t->va", "va->t")} == {
        "t->v": 34.9,
        "t->a": 6.3,
        "v->t": 36.4,
        "a->t": 6.5,
        "t->va": 96.7,
        "va->t": 92.7,
    }
    assert scores["v->a"] == pytest.approx(100 / 540)


@pytest.mark.parametrize("version", RECIPES)
def test_both_senses_know_nearly_all_and_each_alone_does_not(version):
    scores = ceilings_of_the_test(version)
    assert scores["t->va"]["R@1"] > 85
    assert 20 < scores["t->v"]["R@1"] < 40
    assert 5 < scores["t->a"]["R@1"] < 15


def test_in_version_3_no_late_average_knows_as_much_as_both_senses_together():
    scores = {direction: of["R@1"] for direction, of in ceilings_of_the_test(3).items()}
    for fused, late in (("t->va", "t->v+a"), ("va->t", "v+a->t")):
        assert scores[late] < scores[fused] - 5
    assert scores["ta->v"] > scores["t->v"]
    assert scores["tv->a"] > scores["t->a"]
    assert scores["v->a"] < scores["a->v"] * 2 < 2
