"""Questions about films come with the features of their windows."""

import numpy as np
import pytest
import torch

from fusion.data.datasets.dataset import collate
from fusion.data.features.format import Field
from fusion.data.features.writer import StoreWriter
from fusion.data.questions import QUESTION_SETS
from tests.data.questions.made import write_table

FIELDS = {"2d": Field(3, 1.0), "audio": Field(40, 100.0)}
HEADER = "video,start,end,question,answers"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Four films of 30 s; in second k the first feature is k times the second."""
    folder = tmp_path_factory.mktemp("films") / "store"
    rows = np.stack([np.arange(30.0), np.ones(30), np.zeros(30)], axis=1)
    with StoreWriter(folder, FIELDS, name="w") as writer:
        for name in "abcd":
            writer.add(f"{name}.mp4", {"2d": rows, "audio": np.ones((3000, 40))}, {})
    return str(folder)


def open_films(store, *files, **settings):
    return QUESTION_SETS["film_questions"](*map(str, files), store=store, **settings)


def encode(text):
    return torch.tensor([[float(len(word))] for word in text.split()])


def test_an_item_has_question_film_and_scores(store, tmp_path):
    lines = "a.mp4,2,5,What is it?,dog|dog|cat", "b,0,2.5,How loud is it?,very", "a.mp4,2,5,Why?,"
    data = open_films(store, write_table(tmp_path, HEADER, *lines))
    clips = data.clips("train", encode)
    assert data.answers == ["very", "dog", "cat"]
    assert data.texts("train") == ["What is it?", "How loud is it?", "Why?"]
    items = [clips[k] for k in range(len(clips))]
    assert [item["id"] for item in items] == ["a.mp4@2-5", "b.mp4@0-2.5", "a.mp4@2-5#2"]
    assert [question.id for question in clips.questions] == [item["id"] for item in items]
    assert items[0]["text"][:, 0].tolist() == [4, 2, 3]
    seconds = items[0]["video"][:, 0] / items[0]["video"][:, 1]
    torch.testing.assert_close(seconds.float(), torch.tensor([2.0, 3, 4, 5])[: len(seconds)])
    assert len(seconds) >= 3 and 290 < len(items[0]["audio"]) <= 302
    expected = torch.tensor([[0, 2 / 3, 1 / 3], [1, 0, 0], [0, 0, 0]])
    torch.testing.assert_close(collate(items).targets["scores"], expected)
    assert [question.image for question in clips.questions] == ["a.mp4", "b.mp4", "a.mp4"]
    assert list(clips.shows) == [0, 1, 2] and clips.questions[1].answer_type == "other"


def test_films_are_held_out_and_ids_may_be_given(store, tmp_path):
    lines = [f"{name}.mp4,What?,red,{name}{k}" for name in "abcd" for k in range(2)]
    file = write_table(tmp_path, "video,question,answer,id", *lines)
    data = open_films(store, file, held_out=0.25)
    train, held = (data.clips(split).questions for split in ("train", "validation"))
    assert len(train) == 6 and len(held) == 2
    assert len({question.id[0] for question in held}) == 1
    assert data.clips("validation")[1]["id"] == held[1].id
    assert len(data.clips("validation")[0]["video"]) == 12


def test_a_trial_takes_the_first_questions(store, tmp_path):
    lines = [f"{name}.mp4,What?,red" for name in "abcd"]
    data = open_films(store, None, None, write_table(tmp_path, "video,question,answer", *lines))
    data.max_clips, data.answers = 3, ["red"]
    assert len(data.questions("test")) == len(data.clips("test").questions) == 3


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([HEADER, "a,0,2,,red"], "line 2: the question is empty"),
        ([HEADER, "a,2,1,what?,red"], r"line 2: end \(1\) is not after start"),
        ([HEADER], "no questions"),
        (["video,text", "a,b"], "line 1: the column 'text' is unknown"),
        (["video,answer", "a,b"], "line 1: no column question"),
        (["video,question,id", "a,x?,1", "a,y?,1"], r"1 ids are those of several questions \(1\)"),
        ([HEADER, "z,0,2,what?,red"], "1 of 1 clips are of 1 video that .* does not have"),
    ],
)
def test_mistakes_are_one_line(store, tmp_path, lines, message):
    with pytest.raises(ValueError, match=message) as caught:
        open_films(store, write_table(tmp_path, *lines)).clips("train")
    assert "\n" not in str(caught.value)


def test_questions_are_not_joined(store):
    with pytest.raises(ValueError, match="data.group_captions joins captions"):
        open_films(store, "q.csv", group_captions=True)
