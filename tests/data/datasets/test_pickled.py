"""Pickled clips: which of their features are read, and those that have nothing at all."""

import numpy as np
import pytest
import torch

from fusion.data.datasets.dataset import collate
from fusion.data.datasets.msrvtt_youcook2 import PickledVideos, msrvtt
from tests.data.datasets.test_msrvtt_youcook2 import WIDTH, entry, open_test, words, write


def test_of_two_pooled_features_those_under_the_longer_name_are_taken(tmp_path):
    made = [entry(0, **{"2d": np.ones(WIDTH, np.float32), "3d": np.ones(WIDTH, np.float32)})]
    clip = open_test(tmp_path, made, max_video_tokens=0)[0]
    unit = made[0]["2d_pooled"] / np.linalg.norm(made[0]["2d_pooled"])
    torch.testing.assert_close(clip["video"][0, :WIDTH], torch.from_numpy(unit))


def test_where_all_features_are_pooled_the_setting_that_reads_them_is_named(tmp_path):
    pooled = {f"{kind}d": np.ones(WIDTH, np.float32) for kind in (2, 3)}
    made = [entry(0, **pooled)]
    with pytest.raises(ValueError, match=r"2d is pooled over time: set data.max_video_tokens=0"):
        open_test(tmp_path, made)
    assert len(open_test(tmp_path, made, max_video_tokens=0)[0]["video"]) == 1


def known(text):
    """Encode the words that begin with a letter before m."""
    return torch.tensor([[1.0] for word in text.split() if word < "m"]).reshape(-1, 1)


def test_a_clip_without_anything_is_named_and_goes_along(tmp_path, caplog):
    nothing = {"2d": None, "audio": None, "caption": ["xyz", "zzz"], "eval_caption": "xyz"}
    some = [entry(n) for n in range(20)]
    file = write(tmp_path / "train.pkl", [*some, entry(20, **nothing)])
    clips = PickledVideos(train=file).clips("train", known)
    said = "1 of 21 clips have neither picture nor sound nor a word that the text encoder knows"
    assert f"{said} (video20)" in caplog.text
    batch = collate([clips[19], clips[20]])
    assert {m: flags.tolist() for m, flags in batch.present.items()} == {
        m: [True, False] for m in ("text", "video", "audio")
    }
    with pytest.raises(ValueError, match=r"more than data.max_bad \(0.01\) allows"):
        PickledVideos(train=file, max_bad=0.01).clips("train", known)


@pytest.mark.parametrize(
    "one", [{"audio": None}, {"2d": None}, {"2d": None, "audio": None, "caption": ["xyz", "abc"]}]
)
def test_a_clip_with_anything_is_no_empty_one(tmp_path, caplog, one):
    last = entry(1, **{"caption": ["xyz"], "eval_caption": "xyz"} | one)
    file = write(tmp_path / "test.pkl", [entry(0), last])
    PickledVideos(test=file).clips("test", known)
    assert "neither picture" not in caplog.text


def test_training_clips_are_whole_whatever_the_test_is_cut_into(tmp_path):
    file = write(tmp_path / "train.pkl", [entry(0)])
    settings = {"cut": 3, "max_video_tokens": 2, "max_audio_frames": 15}
    source = PickledVideos(train=file, test=file, **settings)
    assert source.clips("train", words).whole is None
    assert len(source.clips("test", words)) == 3


def test_the_9k_split_of_msrvtt_is_a_file_of_its_own(tmp_path):
    for name, number in [("msrvtt_train", 2), ("msrvtt_1k-A_train", 3)]:
        made = [entry(n) for n in range(number)]
        write(tmp_path / "msrvtt" / "resnet" / f"{name}.pkl", made)
    for split, number in [("7k", 2), ("9k", 3)]:
        assert len(msrvtt(str(tmp_path), split).clips("train", words)) == number


@pytest.mark.parametrize("bad", [True, float("nan"), None, b"a cat", {"a": "cat"}])
def test_captions_that_are_no_text_are_left_out_and_named(tmp_path, caplog, bad):
    entries = [entry(n) for n in range(20)]
    entries[3]["caption"][1] = entries[4]["eval_caption"] = bad
    clips = open_test(tmp_path, entries)
    assert clips.texts[3] == ("a cat 3", "birds 3")
    assert clips.captions[4].text == "a cat 4"  # its first other caption
    said = "test.pkl, clip video3, caption 2: text is"
    assert said in caplog.text and "2 of 80 captions cannot be used (2%); left out" in caplog.text
    with pytest.raises(ValueError, match=r"80 captions cannot be used .* data.max_bad \(0.01\)"):
        open_test(tmp_path, entries, max_bad=0.01)


def test_a_clip_may_have_a_number_or_an_array_of_texts_or_none(tmp_path):
    given = [{"caption": 7}, {"caption": np.array(["x", "y"])}, {"caption": ()}]
    entries = [entry(n, eval_caption=None) | change for n, change in enumerate(given)]
    clips = open_test(tmp_path, entries)
    assert clips.texts == [("7",), ("x", "y"), ("",)]
    assert [caption.text for caption in clips.captions] == ["7", "x", ""]
