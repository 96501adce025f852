"""Own films that are damaged end no run: they are named, counted and limited."""

import logging

import av
import numpy as np
import pytest

from fusion.data.datasets.captioned import CaptionedVideos
from fusion.data.features.computed import (
    EXTRACTORS,
    ComputedFeatures,
    _Parts,
    _read,
    compute_features,
)
from fusion.data.media import descriptors
from fusion.data.media.decode import MediaError
from fusion.data.media.film import Piece
from fusion.data.media.streams import Tracks
from fusion.data.media.window import read_frames
from fusion.process import memory_at_peak
from tests.data.media.films import write_film
from tests.data.media.test_cases import CASES


@pytest.fixture
def films(tmp_path, monkeypatch):
    """Four whole films, and one that is none."""
    monkeypatch.setenv("FUSION_CACHE", str(tmp_path / "cache"))
    for name in "abcd":
        write_film(tmp_path / f"{name}.mp4")
    (tmp_path / "none.mp4").write_bytes(b"no film at all")
    rows = [f"{name}.mp4,a star" for name in ("a", "b", "c", "d", "none")]
    (tmp_path / "train.csv").write_text("\n".join(["video_id,caption", *rows]))
    return tmp_path


def test_pictures_and_sound_are_those_of_windows(films):
    made = compute_features(films / "a.mp4", "descriptors")
    size = (descriptors.FRAME_HEIGHT, descriptors.FRAME_WIDTH)
    frames = read_frames(films / "a.mp4", descriptors.FRAMES_PER_SECOND, *size)
    np.testing.assert_array_equal(made["2d"].numpy(), descriptors.appearance(frames))


def test_a_film_that_cannot_be_read_is_named_and_its_clips_are_left_out(films, caplog):
    data = CaptionedVideos(train=str(films / "train.csv"), max_bad=0.2)
    with caplog.at_level(logging.WARNING):
        clips = data.clips("train")
    assert len(clips) == 4
    assert "1 of 5 clips are of 1 film that cannot be read (none.mp4: " in caplog.text
    kept = CaptionedVideos(train=str(films / "train.csv"), max_bad=0.2, bad="missing")
    assert len(kept.clips("train")) == 5
    assert not len(kept.clips("train")[4]["video"])


def test_too_many_films_that_cannot_be_read_are_an_error(films):
    data = CaptionedVideos(train=str(films / "train.csv"), max_bad=0.1)
    with pytest.raises(ValueError, match=r"none.mp4: .*more than data.max_bad \(0.1\) allows"):
        data.clips("train")


def test_a_film_is_computed_once_even_if_it_cannot_be_read(films, monkeypatch):
    ComputedFeatures(films, ["none.mp4", "a.mp4"], "descriptors")
    monkeypatch.setattr("fusion.data.features.computed._compute", None)
    again = ComputedFeatures(films, ["none.mp4", "a.mp4"], "descriptors")
    assert again.videos == ["a.mp4"] and list(again.unreadable) == ["none.mp4"]
    with pytest.raises(MediaError, match=r"none.mp4: .*convert it to mp4"):
        compute_features(films / "none.mp4", "descriptors")


def test_a_damaged_film_is_named_and_what_can_be_read_is_used(films, caplog):
    data = bytearray((films / "a.mp4").read_bytes())
    data[len(data) // 3 : len(data) // 3 + 600] = b"\xff" * 600
    (films / "a.mp4").write_bytes(data)
    made = ComputedFeatures(films, ["a.mp4", "b.mp4"], "descriptors")
    with caplog.at_level(logging.WARNING):
        made.report(0.0, set())
    assert "1 film of 2 damaged (a.mp4: partial: " in caplog.text
    assert made.rows("a.mp4", "audio") and made.rows("a.mp4", "2d")


def test_films_that_lost_their_sound_are_counted_and_limited(films, caplog):
    data = bytearray((films / "a.mp4").read_bytes())
    with av.open(films / "a.mp4") as container:
        for packet in container.demux(audio=0):
            if packet.size:
                data[packet.pos : packet.pos + packet.size] = b"\xff" * packet.size
    (films / "a.mp4").write_bytes(data)
    made = ComputedFeatures(films, ["a.mp4", "b.mp4"], "descriptors")
    assert made.rows("a.mp4", "audio") == 0 and made.rows("a.mp4", "2d")
    with caplog.at_level(logging.WARNING):
        made.report(0.5, set())
    assert "of which 1 without picture or sound (a.mp4: " in caplog.text
    with pytest.raises(ValueError, match=r"no sound \(none that can be decoded\).* data.max_bad"):
        made.report(0.1, set())


def test_the_track_that_was_taken_is_named_and_another_can_be_chosen(films, caplog):
    made = ComputedFeatures(CASES, ["second_sound_default.mkv"], "descriptors")
    with caplog.at_level(logging.WARNING):
        made.report(0.0, set())
    assert "mkv: sound of track 1 (of 0 to 1): default); data.audio_track" in caplog.text
    other = ComputedFeatures(CASES, made.videos, "descriptors", Tracks(audio=0))
    loud = [reader.read(made.videos[0], "audio")[50:750].mean(0) for reader in (made, other)]
    assert loud[0].argmax() < loud[1].argmax()  # of 2,000 hertz
    data = CaptionedVideos(train="x.csv", audio_track="0")
    assert data.recipe()["features"]["tracks"] == {"audio": 0}
    assert "tracks" not in CaptionedVideos(train="x.csv").recipe()["features"]


def test_a_flipped_bit_in_the_cache_never_gives_other_features(films):
    expected = compute_features(films / "a.mp4", "descriptors")
    (file,) = (films / "cache" / "features").rglob("*.safetensors")
    whole, draw = file.read_bytes(), np.random.default_rng(0)
    for place in [*draw.integers(0, len(whole), 40), *draw.integers(0, 600, 40)]:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(draw.integers(8))
        file.write_bytes(damaged)
        found = _read(films / "a.mp4", "descriptors", Tracks())
        for field, rows in expected.items():
            assert found is None or found.features[field].equal(rows)
    assert compute_features(films / "a.mp4", "descriptors").keys() == expected.keys()
    file.write_bytes(whole)
    assert _read(films / "a.mp4", "descriptors", Tracks()) is not None


def test_f21_a_long_film_takes_no_more_memory_than_its_features(films):
    """Nine minutes of pictures and sound: 72 MiB of samples, which the plain way held thrice."""
    piece = Piece("audio", np.zeros(32_000, np.float32), 0.0)
    shown = Piece("pictures", np.zeros((20, 36, 48, 3), np.uint8), 0.0)
    parts, before = _Parts(EXTRACTORS["descriptors"]), memory_at_peak()
    for _ in range(270):
        parts.push(piece)
        parts.push(shown)
    assert memory_at_peak() - before < 24 * 2**20
    made = parts.features()
    assert [len(made[field]) for field in ("2d", "3d", "audio")] == [1080, 1800, 54_001]
