"""What a page shows of a clip, and of clips that are lost."""

import av
import numpy as np
import pytest

from fusion.data.media.encode import write_clip
from fusion.report.gallery import (
    SECONDS,
    GalleryResult,
    draw_strip,
    make_gallery,
    read_snippet,
)
from fusion.tasks.retrieval.gallery import show_query


def test_film_is_seen_and_heard(tmp_path):
    tone = np.sin(np.arange(16_000) / 6).astype(np.float32) / 2
    write_clip(tmp_path / "film.mp4", np.full((10, 48, 64, 3), 200, np.uint8), 10, tone, 16_000)
    snippet = read_snippet(tmp_path / "film.mp4", 0.0, 1.0)
    assert snippet.has_picture and snippet.has_sound and snippet.readable
    for picture in (snippet.poster, snippet.strip, snippet.sound):
        assert picture.startswith(b"\xff\xd8")
    assert b"ftyp" in snippet.player[:16]


def test_strip_shows_early_middle_and_late_at_half_size():
    frames = np.arange(6, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 8, 3), np.uint8)
    strip = draw_strip(frames)
    assert strip.shape == (2, 12, 3)
    assert strip[0, ::4, 0].tolist() == [1, 3, 5]


def test_long_clip_shows_its_middle(tmp_path):
    frames = np.zeros((20 * 2, 48, 64, 3), np.uint8)  # 20 s, bright from 8 to 12 s
    frames[16:24] = 220
    write_clip(tmp_path / "film.mp4", frames, 2, None)
    snippet = read_snippet(tmp_path / "film.mp4", 0.0, 20.0)
    (tmp_path / "player.mp4").write_bytes(snippet.player)
    with av.open(str(tmp_path / "player.mp4")) as film:
        assert film.duration / av.time_base == pytest.approx(SECONDS, abs=0.2)
        bright = [f.to_ndarray(format="gray").mean() > 100 for f in film.decode(video=0)]
    assert not bright[0] and not bright[-1] and bright[len(bright) // 2]


@pytest.mark.parametrize("size", [(48, 64), (64, 36), (36, 128)])
def test_pictures_keep_the_proportions_of_the_film(tmp_path, size):
    height, width = size
    write_clip(tmp_path / "film.mp4", np.full((5, height, width, 3), 200, np.uint8), 5, None)
    (tmp_path / "player.mp4").write_bytes(read_snippet(tmp_path / "film.mp4", 0.0, 1.0).player)
    with av.open(str(tmp_path / "player.mp4")) as film:
        frame = next(film.decode(video=0))
    shown = min(max(width / height, 0.4), 2.5)
    assert frame.width / frame.height == pytest.approx(shown, rel=0.05)


def test_videos_that_are_not_there_are_named_in_one_line(tmp_path, caplog):
    results = [
        GalleryResult(f"{n}@{start}", "a cat", tmp_path / f"gone{n}.mp4", start, 9.0, 0.5, True)
        for n in range(3)
        for start in (0.0, 1.0)
    ]
    page = make_gallery([show_query(text, 1, results) for text in "xy"], 10**6)
    assert len(caplog.records) == 1
    assert "no pictures of 3 videos in the report: there is no" in caplog.text
    assert "gone0.mp4; videos are looked for beside the caption file, and no setting" in caplog.text
    assert page.count("cannot be read") == 12
