"""Windows, frames and tokens: as published, and at their limits."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from fusion.data.captions.table import Caption
from fusion.data.datasets.sampling import (
    Window,
    audio_window,
    caption_window,
    check_finite,
    feature_range,
    fit_video_tokens,
    random_window,
)
from fusion.data.media.log_mel import spectrogram_range, spectrogram_seconds
from fusion.tokens import Tokens
from fusion.words import words_of

GOLDEN = Path(__file__).parents[2] / "golden"
TOKEN_CASES = json.loads((GOLDEN / "video_features.json").read_text())
CASES = json.loads((GOLDEN / "howto_clips.json").read_text())
CAPTIONS = [
    Caption("a.mp4", start, end, text)
    for start, end, text in zip(
        *(CASES["caption"][k] for k in ("start", "end", "text")), strict=True
    )
]


@pytest.mark.parametrize("case", CASES["clips"], ids=lambda case: case["case"])
def test_windows_equal_the_published_ones(case):
    setting, index = case["case"].split(".")
    window = caption_window(CAPTIONS, int(index), CASES["min_time"])
    assert (window.start, window.end) == (case["start"], case["end"])
    assert " ".join(window.words) == case["raw_text"]
    shift = setting == "shift"
    first, last = spectrogram_range(*audio_window(window, CASES["min_time"], shift=shift))
    with np.load(GOLDEN / "howto_clips.npz") as file:
        mel, head, known = file["mel"], file[f"{case['case']}.audio_head"], file["words"]
        assert min(mel[:, first:last].shape[1], CASES["num_audio_STFT_frames"]) == case["n_frames"]
        np.testing.assert_array_equal(mel[:, first : first + 3], head)
    vectors = [word for word in window.words if word in known][: CASES["max_words"]]
    assert len(vectors) == case["n_words"]


def test_there_are_fourteen_published_windows():
    assert len(CASES["clips"]) == 14


def captions(*times):
    return [Caption("a.mp4", start, end, f"w{i}") for i, (start, end) in enumerate(times)]


def test_the_previous_caption_is_added_if_both_make_the_window_as_long():
    window = caption_window(captions((0, 2), (3, 4), (5, 7)), 1, 3)
    assert window == Window(0, 4, ("w1", "w0"))


def test_the_next_caption_is_added_if_it_makes_the_window_less_long():
    window = caption_window(captions((0, 2), (3, 4), (4, 6)), 1, 3)
    assert window == Window(3, 6, ("w1", "w2"))


def test_a_long_caption_stays_as_it_is():
    assert caption_window(captions((0, 2), (3, 6), (7, 9)), 1, 3) == Window(3, 6, ("w1",))


def test_a_short_video_is_taken_whole():
    assert caption_window(captions((1, 2), (3, 4)), 1, 60) == Window(1, 4, ("w1", "w0"))


@pytest.mark.parametrize(
    ("uniform", "expected"),
    [
        (0.0, Window(7.5, 17, ("w0", "w1"))),  # the end lies in 0 (7.5-9), which is extended
        (0.2, Window(4, 12, ())),  # 0 lies inside
        (0.4, Window(7.5, 17, ("w0", "w1"))),  # the start lies in 0, the end in 1 (15-17)
        (0.5, Window(10, 18, ())),
    ],
)
def test_a_random_window_is_that_of_a_caption_on_its_border(uniform, expected):
    spoken = captions((7.5, 9), (15, 17))
    assert random_window(spoken, duration=28.9, min_seconds=8, uniform=uniform) == expected


def test_a_random_window_of_a_short_video_starts_at_its_beginning():
    assert random_window([], duration=5.5, min_seconds=8, uniform=0.9) == Window(0, 8, ())


def test_shifted_sound_starts_half_a_window_later():
    window = Window(10, 25, ("said",))
    assert audio_window(Window(10, 18, ()), 8, shift=True) == (10, 18)
    assert audio_window(window, 8, shift=False) == (10, 25)
    assert audio_window(window, 8, shift=True) == (14, 22)


@pytest.mark.parametrize(
    ("start", "end", "published"),
    [(2.49, 4.2, (3, 7)), (2, 4, (3, 7)), (0, 0.5, (0, 1))],
)
def test_feature_ranges(start, end, published):
    assert feature_range(start, end, 1.5) == published


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [(0, 1, (0, 98)), (0.01, 0.0125, (0, 0)), (0.0224, 0.0225, (0, 1)), (2.0, 2.01, (198, 199))],
)
def test_spectrogram_frames_are_counted_by_their_windows(start, end, expected):
    assert spectrogram_range(start, end) == expected


def test_a_spectrogram_lasts_as_long_as_its_sound():
    assert spectrogram_seconds(98) == pytest.approx(15_880 / 16_000)


def test_words_keep_their_apostrophes_and_nothing_else():
    assert words_of("Don't stop -- it's 350°, OK?") == ["Don't", "stop", "it's", "350", "OK"]
    assert words_of(" ... ") == []


def golden(name):
    with np.load(GOLDEN / name) as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


@pytest.mark.parametrize("index", range(len(TOKEN_CASES)))
def test_video_tokens_equal_the_published_ones(index):
    arrays, case = golden("video_features.npz"), TOKEN_CASES[index]
    actual = fit_video_tokens(
        arrays.get(f"{index}.feat_2d"),
        arrays[f"{index}.feat_3d"],
        case["n_tokens"],
        case["strategy"],
    )
    real = arrays[f"{index}.mask"].bool()
    torch.testing.assert_close(actual, arrays[f"{index}.video"][real], rtol=0, atol=1e-6)


def test_there_are_thirteen_published_cases():
    assert len(TOKEN_CASES) == 13


@pytest.mark.parametrize(("case", "num_frames"), [("padded", 500), ("cut", 200)])
def test_spectrograms_equal_the_published_ones(case, num_frames):
    arrays = golden("audio_features.npz")
    values, mask = Tokens.pack([arrays["mel"].T]).pad(num_frames)
    assert torch.equal(values[0], arrays[case].T)
    assert mask.sum() == arrays[f"{case}_n"] == arrays[f"{case}_mask"].sum()


def test_tokens_have_unit_length_per_kind():
    tokens = fit_video_tokens(3 + torch.rand(20, 4), 3 + torch.rand(30, 5), 12, "max_pool")
    for part in tokens.split([4, 5], dim=1):
        torch.testing.assert_close(part.norm(dim=1), torch.ones(12))


def test_a_short_clip_is_not_stretched():
    assert fit_video_tokens(torch.rand(3, 4), torch.rand(5, 5), 12, "nearest").shape == (5, 9)


def test_pooling_is_a_maximum_before_the_length_is_made_one():
    tokens = fit_video_tokens(torch.tensor([[3.0, 0.0], [1.0, 4.0]]), None, 0)
    torch.testing.assert_close(tokens, torch.tensor([[0.6, 0.8]]))


def test_a_missing_kind_pools_to_zeros():
    tokens = fit_video_tokens(torch.rand(0, 2), torch.tensor([[0.0, 2.0]]), 0)
    assert tokens.tolist() == [[0, 0, 0, 1]]


@pytest.mark.parametrize(("lengths", "num_tokens"), [((0, 4), 12), ((4, 0), 12), ((0, 0), 0)])
def test_a_clip_without_features_has_no_tokens(lengths, num_tokens):
    features = [torch.rand(length, 3) for length in lengths]
    assert fit_video_tokens(*features, num_tokens).shape == (0, 6)


@pytest.mark.parametrize(
    ("features", "num_tokens", "strategy", "message"),
    [
        (None, 12, "clip", "need 2D or 3D features.* got 0 kinds"),
        (torch.rand(3, 4), 12, "mean", "strategy of clip, nearest, max_pool; got .* 'mean'"),
        (torch.rand(3, 4), -1, "clip", "num_tokens >= 0 .* got 1 kinds, -1"),
    ],
)
def test_what_makes_no_tokens_is_refused(features, num_tokens, strategy, message):
    with pytest.raises(ValueError, match=message):
        fit_video_tokens(features, None, num_tokens, strategy)


def test_finite_features_pass():
    check_finite(torch.rand(3, 4), "video of clip a")
    check_finite(torch.rand(0, 4), "video of clip a")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_features_that_are_not_finite_are_refused_with_their_place(value):
    features = torch.rand(3, 4)
    features[1, 2] = features[2, 0] = value
    message = rf"video of clip a: 2 of 12 values .* \({value}\) at time step 1, column 2; extract"
    with pytest.raises(ValueError, match=message):
        check_finite(features, "video of clip a")


@pytest.mark.parametrize("shape", [(4,), (1, 3, 4)])
def test_features_that_are_no_matrix_are_refused(shape):
    with pytest.raises(ValueError, match="video of clip a: .* shape .time, width.; got"):
        check_finite(torch.rand(shape), "video of clip a")
