"""What configs/README.md promises about data of one's own."""

import re
from pathlib import Path

import pytest
import torch

from fusion.data.datasets.captioned import CaptionedVideos

README = (Path(__file__).parents[1] / "configs/README.md").read_text()


def test_the_store_of_own_features_can_be_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(example, {})
    (tmp_path / "t.csv").write_text("video,start,end,text\nbeach,2,5,a dog\n")
    source = CaptionedVideos(test="t.csv", store="features")
    clip = source.clips("test", lambda text: torch.ones(2, 3))[0]
    assert {name: tuple(clip[name].shape) for name in ("video", "audio")} == {
        "video": (4, 512), "audio": (300, 40),
    }  # fmt: skip
    assert source.describe("test").endswith("features of my network (features)")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "Sentence,video_path\nhello,beach.mp4\n"),
        ("a.csv", "text,video,start,end\nhello,beach.mp4,,\n"),
        ("a.json", '[{"video_id": "beach", "Caption": "hello"}]'),
        ("a.json", '{"beach": {"start": [1], "end": [2], "text": ["hello"]}}'),
        ("folder/beach.en.srt", "1\n00:00:01,000 --> 00:00:02,000\nhello\n"),
        ("folder/beach.csv", "start,end,text\n1,2,hello\n"),
    ],
)
def test_caption_files_are_read_in_all_the_ways_that_are_listed(
    tmp_path, monkeypatch, name, content
):
    monkeypatch.chdir(tmp_path)
    exec(re.findall(r"```python\n(.*?)```", README, re.DOTALL)[0], {})
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(content)
    place = "folder" if "/" in name else name
    source = CaptionedVideos(test=place, store="features")
    (caption,) = source.clips("test", lambda text: torch.ones(2, 3)).captions
    assert (caption.video, caption.text) == ("beach.mp4", "hello")
