import json
from pathlib import Path

import numpy as np
import pytest
import torch

from fusion.data.datasets.video_tokens import check_finite, fit_frames, fit_video_tokens, pad_frames

GOLDEN = Path(__file__).parents[2] / "golden"
CASES = json.loads((GOLDEN / "video_features.json").read_text())


def golden(name):
    with np.load(GOLDEN / name) as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


@pytest.mark.parametrize("index", range(len(CASES)))
def test_video_tokens_equal_the_published_ones(index):
    arrays, case = golden("video_features.npz"), CASES[index]
    actual = fit_video_tokens(
        arrays.get(f"{index}.feat_2d"),
        arrays[f"{index}.feat_3d"],
        case["n_tokens"],
        case["strategy"],
    )
    real = arrays[f"{index}.mask"].bool()
    torch.testing.assert_close(actual, arrays[f"{index}.video"][real], rtol=0, atol=1e-6)


def test_there_are_thirteen_published_cases():
    assert len(CASES) == 13


@pytest.mark.parametrize(("case", "num_frames"), [("padded", 500), ("cut", 200)])
def test_spectrograms_equal_the_published_ones(case, num_frames):
    arrays = golden("audio_features.npz")
    mel = arrays["mel"].T
    assert torch.equal(pad_frames(mel, num_frames), arrays[case].T)
    assert len(fit_frames(mel, num_frames)) == arrays[f"{case}_n"]
    assert arrays[f"{case}_mask"].sum() == arrays[f"{case}_n"]


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
