"""What validation in training embeds and ranks, and who reads the clips."""

import pytest

from fusion.config import ConfigError
from fusion.evaluation.settings import Settings
from fusion.tasks.retrieval.ranking import needed_for, validation_ways

EVERY = ["t", "v", "a", "tv", "ta", "va"]
WITH_TEXT = ["t->v", "t->a", "v->t", "a->t", "t->va", "va->t", "t->v+a", "v+a->t"]


class Model:
    modalities = ("text", "video", "audio")

    def __init__(self, combinations=EVERY):
        self.combinations = combinations


def names(settings, model, best=None):
    return [str(way) for way in validation_ways(Settings(**settings), model, best)]


def test_curves_need_the_directions_with_text_alone_on_one_side():
    found = names({}, Model())
    assert sorted(found) == sorted(WITH_TEXT) and found[0] == "t->v"
    assert needed_for(validation_ways(Settings(), Model(), None)) == ["t", "v", "a", "va"]


def test_the_direction_of_best_is_ranked_too():
    assert sorted(names({}, Model(), "ta->v R@5")) == sorted([*WITH_TEXT, "ta->v"])
    assert names({"validation": ["v->t"]}, Model(), "t->va R@1") == ["v->t", "t->va"]
    assert names({"validation": ["v->t"]}, Model(), "last") == ["v->t"]


def test_a_model_without_text_is_ranked_in_all_directions():
    assert names({}, Model(["v", "a"])) == ["v->a", "a->v"]


def test_an_unknown_direction_is_an_error_that_names_the_nearest():
    with pytest.raises(ConfigError, match="evaluation.validation: 't->av'.*did you mean 't->v'"):
        names({"validation": ["t->av"]}, Model())


def test_a_negative_number_of_workers_is_an_error():
    with pytest.raises(ConfigError, match="evaluation.num_workers must be at least 0; got -1"):
        Settings(num_workers=-1)
