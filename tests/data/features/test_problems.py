"""What is wrong with features, in words."""

import numpy as np
import pytest
import torch

from fusion.data.features.format import Field
from fusion.data.features.problems import find_problem, tolerate
from fusion.data.features.readers import PublishedFolders


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.ones((3, 4)), None),
        (torch.ones(3, 4), None),
        (np.ones((4, 3)), r"4 x 3 instead of rows of 4 (transposed)"),
        (np.ones((2, 3)), "2 x 3 instead of rows of 4"),
        (np.ones(4), "1 dimensions instead of rows of features"),
        (np.ones((0, 4)), "no rows"),
        (np.array([[np.inf, 0, 0, np.nan]]), "2 of 4 values are not finite"),
        ("text", "a str, not numbers in an array"),
    ],
)
def test_f18_what_is_wrong_with_features_is_said(values, said):
    assert find_problem(values, 4) == said


def test_values_that_are_not_finite_may_be_allowed():
    assert find_problem(np.array([[np.inf, 0, 0, np.nan]]), 4, finite=False) is None


def test_published_files_are_read_even_if_values_are_not_finite(tmp_path):
    """Where they are used, the clip is named."""
    (tmp_path / "list.csv").write_text("path\na\n")
    (tmp_path / "a").mkdir()
    np.savez(tmp_path / "a" / "a_2d.npz", features=np.array([[np.inf, 1.0]]))
    reader = PublishedFolders(tmp_path / "list.csv", tmp_path, tmp_path, {"2d": Field(2, 1.0)})
    assert reader.read("a", "2d").tolist() == [[np.inf, 1.0]]


def test_a_few_that_a_message_names_are_not_too_many_unless_the_limit_is_set_lower(caplog):
    tolerate("3 of 4", 0.75, "leave_out", 0.05, number=3)
    assert "3 of 4; left out" in caplog.text
    for share, limit, number in [
        (0.75, 0.05, None),
        (0.75, 0.05, 6),
        (1, 0.05, 3),
        (0.75, 0.04, 3),
    ]:
        with pytest.raises(ValueError, match="that is more than data.max_bad"):
            tolerate("bad", share, "leave_out", limit, number)
