"""Films that are in an index twice: equal bytes, copies, parts; and films that show nothing."""

import json
import os
import shutil

import numpy as np
import pytest

from fusion.cli.main import main
from fusion.data.media.encode import write_clip
from fusion.search.films import alike
from fusion.search.films.alike import Clips
from fusion.search.films.duplicates import find_duplicates
from fusion.search.films.loudness import SAME, compare, loudness
from fusion.search.index import Index
from fusion.search.storage import Storage

FPS, RATE = 25, 16_000


def film_of(seed, seconds):
    """Pictures (T, 72, 128, 3) of moving blocks, and a sound that comes and goes."""
    rng = np.random.default_rng(seed)
    scenes = rng.integers(0, 256, (round(seconds), 9, 16, 3), np.uint8)
    frames = []
    for number in range(round(seconds * FPS)):
        picture = np.roll(scenes[min(number // FPS, len(scenes) - 1)], number % FPS // 5, axis=1)
        frames.append(np.kron(picture, np.ones((8, 8, 1), np.uint8)))
    loud = np.repeat(rng.uniform(0, 0.6, round(seconds * 10)), RATE // 10)
    return frames, (loud * rng.uniform(-1, 1, len(loud))).astype("f4")


def write(path, frames, wave, crf=23):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_clip(path, frames, FPS, wave, RATE, crf=crf)
    return path


@pytest.fixture
def collection(tmp_path):
    folder = tmp_path / "films"
    for seed, name in enumerate(("a", "b", "c")):
        write(folder / f"{name}.mp4", *film_of(seed, 6))
    return folder


def groups(model, folder, tmp_path):
    Index(tmp_path / "i", model).add(folder, quiet=True)
    storage = Storage(tmp_path / "i")
    found = find_duplicates(storage, quiet=True)
    storage.close()
    return [
        (g.kind, [(os.path.relpath(p.video, folder), p.start, p.end, p.whole) for p in g.parts])
        for g in found
    ]


def test_different_films_are_no_duplicates(model, collection, tmp_path):
    assert groups(model, collection, tmp_path) == []


def test_equal_files_are_found_by_their_bytes(model, collection, tmp_path):
    (collection / "more").mkdir()
    shutil.copy(collection / "a.mp4", collection / "more" / "x.mp4")
    os.link(collection / "a.mp4", collection / "hard.mp4")
    ((kind, parts),) = groups(model, collection, tmp_path)
    assert kind == "same bytes" and [p[0] for p in parts] == ["a.mp4", "hard.mp4", "more/x.mp4"]


def test_a_copy_that_was_encoded_again_is_found(model, collection, tmp_path):
    frames, wave = film_of(0, 6)
    write(collection / "again.mp4", [frame[::2, ::2] for frame in frames], 0.5 * wave, crf=32)
    ((kind, parts),) = groups(model, collection, tmp_path)
    assert kind == "copies" and [p[0] for p in parts] == ["a.mp4", "again.mp4"]
    assert all(p[3] for p in parts)


def test_a_trimmed_copy_is_found_with_its_times(model, collection, tmp_path):
    frames, wave = film_of(0, 6)
    first = round(1.44 * FPS)
    write(collection / "trimmed.mp4", frames[first : first + 75], wave[int(1.44 * RATE) :][:48_000])
    ((kind, parts),) = groups(model, collection, tmp_path)
    assert kind == "parts" and [p[0] for p in parts] == ["a.mp4", "trimmed.mp4"]
    assert parts[0][1:3] == pytest.approx((1.44, 4.44), abs=0.12)
    assert parts[1][1:3] == pytest.approx((0, 3), abs=0.12) and parts[1][3]


def test_a_shared_beginning_is_one_group(model, tmp_path):
    frames, wave = film_of(7, 3)
    for seed in (1, 2, 3):
        mine, sound = film_of(10 + seed, 4)
        write(tmp_path / "films" / f"{seed}.mp4", frames + mine, np.concatenate([wave, sound]))
    ((kind, parts),) = groups(model, tmp_path / "films", tmp_path)
    assert kind == "parts" and [p[0] for p in parts] == ["1.mp4", "2.mp4", "3.mp4"]
    for _, start, end, whole in parts:
        assert start < 0.5 and 2 < end < 4.5 and not whole


def test_black_films_and_silence_are_not_all_the_same(model, tmp_path):
    black = [np.zeros((72, 128, 3), np.uint8)] * 75
    grey = [np.full((72, 128, 3), 128, np.uint8)] * 75
    silence = np.zeros(3 * RATE, "f4")
    folder = tmp_path / "films"
    write(folder / "black.mp4", black, None)
    write(folder / "black and silent.mp4", black, silence)
    write(folder / "black and longer.mp4", black + black, np.zeros(6 * RATE, "f4"))
    write(folder / "grey.mp4", grey, silence)
    write(folder / "silence.mp4", None, silence)
    write(folder / "more silence.mp4", None, np.zeros(4 * RATE, "f4"))
    for seed in (1, 2):
        write(folder / f"talk {seed}.mp4", black, film_of(seed, 3)[1])
    assert groups(model, folder, tmp_path) == []


def test_black_films_of_one_sound_are_the_same(model, tmp_path):
    wave = film_of(1, 3)[1]
    for value in (0, 40):
        picture = np.full((72, 128, 3), value, np.uint8)
        write(tmp_path / "films" / f"{value}.mp4", [picture] * 75, wave, crf=20 + value // 4)
    write(tmp_path / "films" / "sound.mp4", None, wave)
    found = groups(model, tmp_path / "films", tmp_path)
    assert [p[0] for p in found[0][1]][:2] == ["0.mp4", "40.mp4"]


def test_one_picture_with_other_sounds_is_not_the_same(model, tmp_path):
    cover = film_of(5, 1)[0][0]
    for seed in (1, 2, 3):
        write(tmp_path / "films" / f"{seed}.mp4", [cover] * 75, film_of(seed, 3)[1])
    assert groups(model, tmp_path / "films", tmp_path) == []


def test_duplicates_are_printed_and_written_as_json(model, run, collection, tmp_path, capsys):
    shutil.copy(collection / "a.mp4", collection / "x.mp4")
    words = ["index", str(collection), "--out", str(tmp_path / "i"), "--model", str(run)]
    main([*words, "--duplicates"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("4 films, 36 clips (4 new)") or "4 films" in lines[0]
    assert lines[1] == f"same bytes  1.00  {collection / 'a.mp4'}, {collection / 'x.mp4'}"
    assert lines[2] == "1 group of films that are the same"
    main(["index", "--out", str(tmp_path / "i"), "--duplicates", "--json"])
    (group,) = json.loads(capsys.readouterr().out)
    assert [film["video"] for film in group["films"]] == [
        str(collection / "a.mp4"),
        str(collection / "x.mp4"),
    ]
    with pytest.raises(SystemExit):
        main(["index", "--out", str(tmp_path / "none"), "--duplicates"])
    assert "there is no index" in capsys.readouterr().err and not (tmp_path / "none").exists()
    for wrong in (["index", "--out", "i"], [*words, "--json"]):
        with pytest.raises(SystemExit):
            main(wrong)


def naive_pairs(vectors, films, nearest, least):
    """The nearest clips of other films for each clip, by hand."""
    found = set()
    for one in range(len(vectors)):
        others = [o for o in range(len(vectors)) if films[o] != films[one]]
        cosines = {o: float(vectors[one] @ vectors[o]) for o in others}
        best = sorted(cosines, key=lambda o: -cosines[o])[:nearest]
        found |= {(one, o) for o in best if cosines[o] >= least}
    return found


def test_nearest_clips_found_in_blocks_are_those_of_a_naive_search(monkeypatch):
    rng = np.random.default_rng(0)
    base = rng.standard_normal((12, 8))
    vectors = base[rng.integers(0, 12, 60)] + 0.2 * rng.standard_normal((60, 8))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype("f4")
    films = np.repeat(np.arange(20), 3)
    places = np.arange(60)
    clips = Clips(places, places, films, np.zeros((60, 2)), ["v"] * 60)
    for rows, columns in ((1024, 16_384), (7, 5), (60, 1), (1, 17)):
        monkeypatch.setattr(alike, "_ROWS", rows)
        monkeypatch.setattr(alike, "_COLUMNS", columns)
        one, other, cosines = alike._nearest(vectors, clips, places, places, "v", True)
        pairs = set(zip(one.tolist(), other.tolist(), strict=True))
        assert pairs == naive_pairs(vectors, films, alike.NEAREST, alike.CANDIDATE)
        expected = (vectors[one] * vectors[other]).sum(1)
        np.testing.assert_allclose(cosines, expected, atol=1e-6)


def test_the_sound_says_by_how_much_a_copy_was_trimmed(tmp_path):
    wave = film_of(3, 8)[1]
    whole = write(tmp_path / "whole.mp4", None, wave)
    late = write(tmp_path / "late.mp4", None, 0.3 * wave[int(1.2 * RATE) :])
    other = write(tmp_path / "other.mp4", None, film_of(4, 8)[1])
    levels = {path: loudness(path, 0, 6) for path in (whole, late, other)}
    value, shift = compare(levels[whole], levels[late], 2)
    assert value > SAME and shift == pytest.approx(1.2, abs=0.03)
    assert compare(levels[whole], levels[other], 2)[0] < SAME
    assert loudness(whole, 50, 60) is None and loudness(tmp_path / "no.mp4", 0, 1) is None
    assert loudness(write(tmp_path / "hum.mp4", None, np.full(64_000, 0.2, "f4")), 0, 4) is None
