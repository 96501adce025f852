"""What is wrong with features, in words."""

import numpy as np
import pytest
import torch

from fusion.data.features.problems import find_problem


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
def test_what_is_wrong_with_features_is_said(values, said):
    assert find_problem(values, 4) == said
