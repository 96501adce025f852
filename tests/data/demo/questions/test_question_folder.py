"""The built-in pictures and questions on disk, and the highest accuracies on them."""

import csv
import json
import time
from collections import Counter

import av
import numpy as np
import pytest

from fusion.data.demo import CorpusError
from fusion.data.demo.questions import folder as folder_module
from fusion.data.demo.questions import scenes_folder
from fusion.data.demo.questions.ask import TYPES, draw_question
from fusion.data.demo.questions.ceilings import ceilings
from fusion.data.demo.questions.draw import draw_picture
from fusion.data.demo.questions.plan import Picture, plan_pictures, plan_split
from fusion.data.demo.questions.things import Thing
from fusion.data.media.encode import encode_png
from tests.data.demo.test_no_leak import assert_independent

SETS = ("train", "validation", "test", "simple")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return scenes_folder(12, cache=tmp_path_factory.mktemp("cache"))


def table(folder, split):
    with (folder / f"{split}.csv").open() as file:
        return list(csv.DictReader(file))


def files(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# Files.


def test_tables_hold_the_plan(tiny):
    for split in SETS:
        plan = [p for p in plan_pictures(12) if p.split == split]
        rows = table(tiny, split)
        assert list(rows[0]) == [
            "id",
            "image",
            "question",
            "answer",
            "question_type",
            "answer_type",
        ]
        expected = [(p.path, q.text, answer, q.type) for p in plan for q, answer in p.asked]
        names = ("image", "question", "answer", "question_type")
        assert [tuple(row[name] for name in names) for row in rows] == expected


def test_ids_are_unique_over_all_splits(tiny):
    ids = [row["id"] for split in SETS for row in table(tiny, split)]
    assert len(set(ids)) == len(ids) == 4 * 12 * 4


def test_answer_types_are_those_of_vqa(tmp_path):
    kinds = {(q.type, q.kind): folder_module._answer_type(q.answers) for q in some_questions()}
    found = {kind: {t for (_, k), t in kinds.items() if k == kind} for _, kind in kinds}
    yes_no, number, other = {"yes/no"}, {"number"}, {"other"}
    assert found["is"] == found["existence"] == yes_no
    assert found["count"] == number
    assert found["half"] == found["shape beside"] == found["colour"] == other


def some_questions():
    kinds = ("shape", "colour", "count", "half", "is", "shape beside", "existence")
    return [draw_question(kind, np.random.default_rng(0)) for kind in kinds]


def test_images_are_the_drawn_pictures(tiny):
    for picture in plan_pictures(12)[::7]:
        with av.open(str(tiny / picture.path)) as container:
            (frame,) = container.decode(video=0)
        np.testing.assert_array_equal(frame.to_ndarray(format="rgb24"), draw_picture(picture))
    assert len([*(tiny / "images").iterdir()]) == 48


def test_a_second_rendering_has_the_same_bytes_and_takes_less_than_a_second(tiny, tmp_path):
    start = time.process_time()
    again = scenes_folder(12, cache=tmp_path)
    assert time.process_time() - start < 1
    assert files(again) == files(tiny)
    assert again.name == "questions-v3-12"


def test_the_second_use_renders_nothing(tiny, monkeypatch):
    monkeypatch.setattr(folder_module, "_render", None)
    assert scenes_folder(12, cache=tiny.parent) == tiny


def test_the_cache_is_that_of_the_films(tmp_path, monkeypatch):
    monkeypatch.setenv("FUSION_CACHE", str(tmp_path))
    monkeypatch.setattr(folder_module, "_render", lambda folder, pictures: folder.mkdir())
    assert scenes_folder(12) == tmp_path / "questions-v3-12"


def test_an_interrupted_rendering_leaves_nothing(tmp_path, monkeypatch):
    def stop(pictures):
        raise KeyboardInterrupt

    monkeypatch.setattr(folder_module, "ceilings", stop)
    with pytest.raises(KeyboardInterrupt):
        scenes_folder(12, cache=tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["questions-v3-12.lock"]


def test_a_full_disk_is_noticed_before_rendering(tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 100_000})
    monkeypatch.setattr("shutil.disk_usage", lambda place: usage)
    with pytest.raises(CorpusError, match=f"no space .*{tmp_path}.* takes 1 MB.*FUSION_CACHE"):
        scenes_folder(12, cache=tmp_path)


def test_an_impossible_size_makes_no_folder(tmp_path):
    with pytest.raises(ValueError, match="data.images is 13; choose a multiple of 12"):
        scenes_folder(13, cache=tmp_path)
    assert not [*tmp_path.iterdir()]


@pytest.fixture(scope="module")
def sizes():
    """Pictures, and whether their files are large."""
    pictures = plan_split("test", 216)
    found = [len(encode_png(draw_picture(picture))) for picture in pictures]
    return list(zip(pictures, found > np.median(found), strict=True))


@pytest.mark.parametrize("kind", ["shape", "colour", "half", "side", "is", "existence"])
def test_the_size_of_a_file_says_nothing_of_the_answer(kind, sizes):
    """More things make a larger file, so it does say how many there are."""
    pairs = [(a, large) for p, large in sizes for q, a in p.asked if q.kind == kind]
    assert_independent(pairs)


# Ceilings.


def best_by_brute_force(rows, cue):
    """Answer all rows of a cue alike: the share that is right at best, in per cent."""
    right = 0
    for value in {row[cue] for row in rows}:
        answers = [row["answer"] for row in rows if row[cue] == value]
        right += max(answers.count(answer) for answer in answers)
    return 100 * right / len(rows)


def test_ceilings_are_those_of_the_tables(tiny):
    stated = json.loads((tiny / "ceilings.json").read_text())
    assert list(stated) == list(SETS[:3])
    for split in stated:
        rows = table(tiny, split)
        types = {row["question_type"] for row in rows}
        assert set(stated[split]) == {"all", *types}
        for name, found in stated[split].items():
            some = [row for row in rows if name in ("all", row["question_type"])]
            assert found == {
                "perceiver": 100,
                "question": pytest.approx(best_by_brute_force(some, "question")),
                "image": pytest.approx(best_by_brute_force(some, "image")),
                "frequent": pytest.approx(best_by_brute_force(some, "question_type")),
            }


def test_the_ceilings_of_the_questions_follow_from_the_balance():
    """One over the number of answers, whatever the text; the two of a picture differ."""
    found = ceilings(plan_split("validation", 216))
    sixth = pytest.approx(100 / 6)
    expected = {"shape": sixth, "colour": sixth, "count": 25, "place": 50, "existence": 50}
    expected["relation"] = pytest.approx((50 + 100 / 6 + 100 / 6) / 3)
    assert {name: found[name]["question"] for name in TYPES} == expected
    assert found["all"]["question"] == pytest.approx(
        sum(map(float, (100 / 3, 25, 100, 250 / 9))) / 6
    )
    assert {found[name]["image"] for name in TYPES} == {50}
    assert {scores["perceiver"] for scores in found.values()} == {100}
    frequent = {"shape": sixth, "colour": sixth, "count": 25, "place": 25, "existence": 50}
    assert {name: found[name]["frequent"] for name in TYPES} == frequent | {"relation": sixth}


def test_a_wrong_answer_costs_the_perceiver():
    question = next(q for q in some_questions() if q.kind == "count")
    pictures = [
        Picture("test", number, (), ((question, answer),)) for number, answer in enumerate("0011")
    ]
    found = ceilings([*pictures, Picture("test", 4, (Thing("star", "red", 9, 9, 7, 0),), ())])
    assert found == {
        name: {"perceiver": 50, "question": 50, "image": 100, "frequent": 50}
        for name in ("all", "count")
    }


def test_all_pictures_of_a_small_set_are_in_a_table(tiny):
    counts = Counter(row["image"] for split in SETS for row in table(tiny, split))
    assert set(counts.values()) == {4} and len(counts) == 48
