import numpy as np
import pytest
import torch

from fusion.config import ConfigError
from fusion.evaluation.classes import Classified, Settings, class_table, confusion
from fusion.evaluation.metrics import interval_over

CLASSES = ["up", "down", "in", "out", "left", "right"]
PAIRS = {"vertical": ("up", "down"), "depth": ("in", "out"), "sides": ("left", "right")}


def classified(choices, labels, readable=None, files=None, pairs=PAIRS):
    """Films whose best classes are ``choices``, best first."""
    scores = torch.zeros(len(labels), len(CLASSES))
    for row, names in enumerate(choices):
        for place, name in enumerate(names):
            scores[row, CLASSES.index(name)] = 10 - place
    return Classified(
        [str(n) for n in range(len(labels))],
        files or [str(n) for n in range(len(labels))],
        np.array([CLASSES.index(label) for label in labels]),
        scores,
        np.array(readable or [True] * len(labels)),
        CLASSES,
        pairs,
    )


def test_metrics_by_hand():
    found = classified(
        [["up", "down"], ["up", "down"], ["in", "down", "up"], ["left"]],
        ["up", "down", "down", "left"],
        readable=[True, True, True, False],
    )
    assert found.metrics["top1"].tolist() == [1, 0, 0, 0]
    assert found.metrics["top5"].tolist() == [1, 1, 1, 0]
    assert found.metrics["pair"].tolist() == [1, 1, 0, 0]
    assert found.metrics["order"].tolist() == [1, 0, 1, 0]
    table = class_table(found)
    assert table["all"]["top1"] == 25 and table["all"]["films"] == 4
    assert table["all"]["mean_class"] == pytest.approx(100 / 3)  # up 1, down 0, left 0
    assert table["pair: vertical"]["order"] == pytest.approx(200 / 3)
    assert table["class: down"]["films"] == 2 and "class: in" not in table
    assert set(class_table(classified([["up"]], ["up"], pairs={}))) == {"all", "class: up"}


def test_equal_scores_are_not_an_order():
    found = classified([[]], ["up"])
    assert found.metrics["order"].tolist() == [0]


def test_an_interval_is_over_files_and_not_over_their_parts():
    right = np.array([1.0, 0.0] * 50)
    alone = interval_over(np.arange(100), right)
    repeated = interval_over(np.arange(100).repeat(9), right.repeat(9))
    assert repeated == pytest.approx(alone)
    apart = interval_over(np.arange(900), right.repeat(9))
    assert apart[1] - apart[0] < (alone[1] - alone[0]) / 2


def test_confusions_are_counted_by_right_and_chosen_class():
    found = classified(
        [["up"], ["down"], ["down"], ["left"], ["in"]], ["up", "up", "down", "down", "left"]
    )
    rows, columns, counts = confusion(found, most=2)
    assert rows == ["up", "down"] and columns == ["up", "down", "others"]
    assert counts.tolist() == [[1, 1, 0], [0, 1, 1]]
    rows, columns, counts = confusion(found)
    assert rows == columns == CLASSES and counts.sum() == 5


@pytest.mark.parametrize(
    ("change", "message"),
    [({"crops": 2}, "crops must be 1 or 3; got 2"), ({"clips": 0}, "clips must be at least 1")],
)
def test_impossible_settings_are_one_line(change, message):
    with pytest.raises(ConfigError, match=message):
        Settings(**change)
