"""Curves of scores over time."""

import numpy as np

from fusion.report.score_curves import CurveStep, draw_curves, thin


def test_all_steps_have_one_scale_that_is_written():
    scores = [np.array([0.0, 0.5, -np.inf]), np.array([-0.25, 1.0, 0.0])]
    figure = draw_curves([CurveStep(str(n), s, 1.5) for n, s in enumerate(scores)])
    limits = [axes.get_ylim() for axes in figure.axes]
    assert limits[0] == limits[1] and limits[0][0] < -0.25 and limits[0][1] > 1
    for axes in figure.axes:
        assert [label.get_text() for label in axes.get_yticklabels()] == ["-0.25", "1.00"]


def test_steps_of_which_nothing_is_known_are_drawn():
    figure = draw_curves([CurveStep("a", np.full(3, -np.inf))])
    assert len(figure.axes) == 1


def test_long_curves_are_averaged_in_groups():
    times, values = thin(np.arange(3000.0), 1.0)
    assert len(times) == 1500 and times[0] == 1.0 and values[0] == 0.5
