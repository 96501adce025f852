"""Learning curves: gaps, repeats, many points, axes."""

import math

import pytest

from fusion.report.curves import learning_curves, thin_out, ticks


def test_curves_survive_gaps_repeats_and_single_points():
    rows = [
        {"event": "train", "step": 1, "loss": math.nan},
        {"event": "train", "step": 2, "loss": 5.0},
        {"event": "train", "step": 2, "loss": 3.0},  # a resumed run repeats the step
        {"event": "train", "loss": 4.0},
        {"event": "note", "step": 3, "loss": 77.0},
    ]
    page = learning_curves(rows)
    assert page.count("<circle") == 1
    assert "loss, step 2: 3<" in page
    assert "nan" not in page
    assert learning_curves([]) == ""


def test_long_curves_are_averaged_and_keep_their_end():
    curve = [(float(i), float(i % 2)) for i in range(10_000)]
    thin = thin_out(curve, 300)
    assert len(thin) <= 300
    assert thin[-1] == curve[-1]
    assert all(abs(y - 0.5) < 0.1 for _, y in thin[:-1])


@pytest.mark.parametrize(
    ("low", "high"), [(0, 100), (0.2, 7.3), (-3, 3), (1e-5, 1e-3), (5, 5), (0, 0)]
)
def test_ticks_are_few_and_hold_the_values(low, high):
    axis = ticks(low, high)
    assert axis.low <= low <= high <= axis.high
    assert axis.low < axis.high
    assert 3 <= len(axis.values) <= 8
