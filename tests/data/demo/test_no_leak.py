"""Version 3: no cue beside the attributes themselves says what a scene is about.

A cue is independent of what is spoken of if a chi-square test finds nothing. Cues are drawn for
each scene on its own, so counts of (value, cue) have the variance that the test assumes, or less
where a cue is shared out within a film. The threshold is four standard deviations.
"""

import dataclasses
import functools

import numpy as np
import pytest

from fusion.data.demo import perceiver
from fusion.data.demo.cutaways import PLACES
from fusion.data.demo.plan import seen_of
from fusion.data.demo.sentences import ATTRIBUTES
from fusion.data.demo.versions import plan_corpus

DEVIATIONS = 4


@functools.cache
def scenes():
    """Each scene of the largest corpus with its place within the film."""
    return [(n, scene) for film in plan_corpus(870, 3) for n, scene in enumerate(film.scenes)]


def shot_of(scene):
    """The number of the shot that is spoken of."""
    return [shot.place for shot in scene.shots].index(scene.place)


def other_value(attribute, scene):
    """The value of an attribute in the shot that is not spoken of; None without such a shot."""
    others = [shot for shot in scene.shots if shot.place != scene.place]
    return others[0].values.get(attribute) if others else None


CUES = {
    "the place": lambda n, scene: scene.place,
    "which shot": lambda n, scene: (len(scene.shots), shot_of(scene)),
    "the number of shots": lambda n, scene: len(scene.shots),
    "the first shot's place": lambda n, scene: (len(scene.shots), scene.shots[0].place),
    "the length": lambda n, scene: scene.num_frames,
    "the length of the first shot": lambda n, scene: (
        len(scene.shots) > 1 and (scene.shots[0].num_frames > scene.shots[1].num_frames) + 1
    ),
    "the number within the film": lambda n, scene: n,
    "whether the place is said": lambda n, scene: scene.says_place,
    "whether something is unsaid": lambda n, scene: bool(scene.text and scene.unsaid),
    "black": lambda n, scene: scene.has_picture,
    "silent": lambda n, scene: scene.has_sound,
}


def assert_independent(pairs):
    """Pearson's test on (value, cue) pairs; its quantile as Wilson and Hilferty (1931) give it."""
    values, cues = (sorted(set(some)) for some in zip(*pairs, strict=True))
    counts = np.zeros((len(values), len(cues)))
    for value, cue in pairs:
        counts[values.index(value), cues.index(cue)] += 1
    counts = counts[:, counts.sum(axis=0) >= 5 * len(values)]  # rare cues have no chi-square
    assert counts.shape[1] > 1
    expected = counts.sum(axis=1, keepdims=True) * counts.sum(axis=0) / counts.sum()
    statistic = ((counts - expected) ** 2 / expected).sum()
    freedom = (counts.shape[0] - 1) * (counts.shape[1] - 1)
    spread = 2 / (9 * freedom)
    assert statistic < freedom * (1 - spread + DEVIATIONS * spread**0.5) ** 3


@pytest.mark.parametrize("cue", CUES)
@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_a_cue_says_nothing_of_what_is_spoken_of(attribute, cue):
    assert_independent([(s.values[attribute], CUES[cue](n, s)) for n, s in scenes()])


@pytest.mark.parametrize("attribute", seen_of(ATTRIBUTES))
def test_the_shot_that_is_not_spoken_of_looks_like_any_other(attribute):
    """A value is as frequent in the shots that are spoken of as in the others."""
    cut = [scene for _, scene in scenes() if len(scene.shots) == 2]
    meant = [(scene.values[attribute], 0) for scene in cut]
    assert_independent(meant + [(other_value(attribute, scene), 1) for scene in cut])


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_the_test_finds_a_leak(attribute):
    """One scene in seven whose place follows from the attribute is enough."""
    values = ATTRIBUTES[attribute]
    leaking = [
        (s.values[attribute], PLACES[values.index(s.values[attribute]) % 2] if n == 0 else s.place)
        for n, s in scenes()
    ]
    with pytest.raises(AssertionError):
        assert_independent(leaking)


HALVES = {
    "the first": lambda scene: shot_of(scene) == 0,
    "the longer one": lambda scene: (
        scene.shots[shot_of(scene)].num_frames > scene.shots[1 - shot_of(scene)].num_frames
    ),
    "the one indoors": lambda scene: scene.place == "indoors",
}


@pytest.mark.parametrize("which", HALVES)
def test_who_only_sees_cannot_guess_which_of_two_shots_is_meant(which):
    cut = [scene for _, scene in scenes() if len(scene.shots) == 2]
    if which == "the longer one":
        cut = [scene for scene in cut if scene.shots[0].num_frames != scene.shots[1].num_frames]
    hits = np.mean([HALVES[which](scene) for scene in cut])
    assert abs(hits - 0.5) < DEVIATIONS * 0.5 / len(cut) ** 0.5


# A perfect perceiver that knows one cue alone.


@pytest.fixture
def knows(monkeypatch):
    """Let perceivers know some attributes of each modality alone, by number; the place is last."""
    perceive = perceiver.perceive

    def only(**columns):
        def perceive_little(some):
            shown = perceive(some)
            kept = {}
            for name in ("said", "seen", "heard"):
                array = getattr(shown, name)
                is_known = np.isin(np.arange(array.shape[-1]), columns.get(name, []))
                kept[name] = np.where(is_known, array, perceiver.UNKNOWN)
            return dataclasses.replace(shown, **kept)

        monkeypatch.setattr(perceiver, "perceive", perceive_little)
        films = [film for film in plan_corpus(3, 3) if film.split == "test"]
        return perceiver.ceilings(films)

    return only


PLACE = len(ATTRIBUTES)


def test_places_that_are_seen_and_heard_alone_find_nothing_by_text(knows):
    """What is left is which clips have the modalities, of 24 in three films."""
    scores = knows(seen=[PLACE], heard=[PLACE])
    for direction in ("t->va", "va->t", "t->v+a"):
        assert scores[direction]["R@1"] == pytest.approx(100 / 24)


def test_a_place_that_is_said_is_worth_one_bit_at_most(knows):
    scores = knows(said=[PLACE], seen=[PLACE], heard=[PLACE])
    for direction in ("t->va", "va->t", "t->a", "a->t"):
        assert 100 / 24 < scores[direction]["R@1"] <= 200 / 24


def test_the_number_of_shots_alone_finds_nothing(knows):
    scores = knows(said=range(PLACE))
    for direction in ("t->v", "v->t", "t->va", "va->t", "t->v+a"):
        assert scores[direction]["R@1"] == pytest.approx(100 / 24)
