"""The public annotation files, read as they are; they are no part of the repository."""

from pathlib import Path

import pytest

from fusion.data.captions.formats import read_caption_file
from fusion.data.captions.lists import read_video_list
from fusion.data.captions.match import find_captions
from fusion.data.captions.table import CaptionError

FOLDER = Path(__file__).parents[4] / "shared" / "data" / "annotations"
pytestmark = pytest.mark.skipif(
    not FOLDER.is_dir(), reason="needs ../shared/data/annotations, beside the checkout"
)


@pytest.mark.parametrize(
    ("file", "captions", "videos", "whole"),
    [
        ("milnce_csv/validation_youcook.csv", 3350, 436, False),
        ("milnce_csv/msrvtt_test.csv", 1000, 1000, True),
        ("msrvtt_splits/MSRVTT_JSFUSION_test.csv", 1000, 1000, True),
        ("howto100m_asr/small_val_captions.csv", 246, 30, False),
    ],
)
def test_public_caption_files(file, captions, videos, whole):
    found = read_caption_file(FOLDER / file)
    assert (len(found), len({c.video for c in found})) == (captions, videos)
    assert {c.is_whole for c in found} == {whole}


def test_public_captions_in_a_file_for_each_video():
    folder = FOLDER / "howto100m_asr" / "small_train_captions"
    names = [file.stem for file in folder.iterdir()]
    found = find_captions(folder, [f"{name}.mp4" for name in names])
    assert (len(found), sum(map(len, found.values()))) == (100, 11173)
    assert all(found.values())


@pytest.mark.parametrize(
    ("file", "number"),
    [
        ("msrvtt_splits/MSRVTT_train.7k.csv", 7010),
        ("msrvtt_splits/MSRVTT_train.9k.csv", 9000),
        ("howto100m_asr/small_train_videos.csv", 60),
        ("howto100m_asr/small_train_noend.txt", 60),
    ],
)
def test_public_lists(file, number):
    assert len(read_video_list(FOLDER / file)) == number


def test_what_has_no_captions_is_no_caption_file():
    for file in ("msrvtt_splits/MSRVTT_train.9k.csv", "milnce_csv/hmdb51.csv"):
        with pytest.raises(CaptionError, match=r"line 1: no column text among video_id"):
            read_caption_file(FOLDER / file)


def test_training_and_test_of_msrvtt_share_no_video():
    folder = FOLDER / "msrvtt_splits"
    test = {c.video for c in read_caption_file(folder / "MSRVTT_JSFUSION_test.csv")}
    assert not test & set(read_video_list(folder / "MSRVTT_train.9k.csv"))
