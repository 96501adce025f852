"""What is read from the curves of a range test."""

import pytest

from fusion.training.rate_choice import middle, read_curve, smooth, window_of

RATES = [10.0**power for power in range(-8, 4)]
CONTROL = [4.0] * 12
FALLS = [4.0] * 4 + [4.0, 3.0, 2.0, 1.0, 1.0, 4.0, 5.0, 6.0]  # largest gain at 1e-1 and 1


def test_values_are_averaged_with_their_neighbours_and_fewer_at_the_ends():
    assert smooth([1.0, 2.0, 6.0, 4.0], 3) == [1.5, 3.0, 4.0, 5.0]
    assert [window_of(steps) for steps in (8, 30, 48, 100)] == [3, 3, 3, 7]


def test_the_rate_to_take_is_between_half_of_the_largest_gain_and_all_of_it():
    curve = read_curve(RATES, FALLS, CONTROL)
    # The mean gain of three steps is largest at 1e-1; half of it is reached at 1e-2.
    between = 10**-1.5
    assert curve.gain[4:9] == pytest.approx([1 / 3, 1, 2, 8 / 3, 2])
    assert curve.recommended == pytest.approx(between)
    assert curve.diverges == 10.0  # where less than half is left


def test_the_rate_to_take_is_far_below_the_one_that_diverges():
    rates = [10.0 ** (power / 4) for power in range(-16, -4)]
    curve = read_curve(rates, [4.0] * 7 + [1.0, 1.0, 13.0, 13.0, 13.0], CONTROL)
    assert curve.gain[6:9] == pytest.approx([1, 2, -1])  # half of the largest is reached at 6
    assert curve.diverges == rates[8]
    assert curve.recommended == pytest.approx(rates[8] / 10)


def test_a_run_that_stopped_has_diverged_there():
    curve = read_curve(RATES, [*FALLS[:8], float("nan")], CONTROL)
    assert len(curve.gain) == 8
    assert curve.diverges == RATES[8]


def test_what_other_parts_learn_and_how_batches_differ_is_no_gain():
    control = [4.0 - 0.2 * step + step % 2 for step in range(12)]
    assert read_curve(RATES, control, control).recommended is None
    harmed = [value + (step > 7) for step, value in enumerate(control)]
    curve = read_curve(RATES, harmed, control)
    assert (curve.recommended, curve.diverges) == (None, RATES[7])


def test_the_middle_of_rates_is_on_their_logarithmic_scale():
    assert middle([1e-4, 1e-2, 1.0]) == pytest.approx(1e-2)
    assert middle([1e-4, 1e-2]) == pytest.approx(1e-3)
    assert middle([None, 1e-2, 1e-2]) == pytest.approx(1e-2)
    assert middle([None, 1e-2]) is None
