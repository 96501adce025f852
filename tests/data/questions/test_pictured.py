"""Questions about images as a data set: splits, vocabulary, items, batches."""

import json
import logging

import pytest
import torch
from torch.utils.data import DataLoader

from fusion.config import check
from fusion.data.datasets.dataset import FirstClips, collate
from fusion.data.questions import QUESTION_SETS
from fusion.data.questions.pictured import PicturedQuestions, draw_images
from fusion.data.questions.question import Question
from tests.data.questions.made import COLOURS, close, save_image, write_easy, write_table, write_vqa


class Letters:
    """Encodes a text as the codes of its letters, and counts how often it is asked."""

    def __init__(self):
        self.asked = []

    def __call__(self, sentence):
        self.asked.append(sentence)
        return torch.tensor([[float(ord(letter))] for letter in sentence])


@pytest.fixture
def easy(tmp_path, cache):
    write_easy(tmp_path, "train", 10)
    write_easy(tmp_path, "test", 4)
    return QUESTION_SETS["easy_vqa"](str(tmp_path), image_size=4)


def test_an_item_has_question_image_and_scores(easy):
    clips = easy.clips("test", Letters())
    assert len(clips) == 8 and clips.folder.parts[-2:] == ("test", "images")
    assert clips.questions == easy.questions("test")
    item = clips[2]
    assert list(item) == ["id", "text", "image", "targets"]
    assert item["id"] == "1.png"
    assert item["text"][:, 0].tolist() == [ord(letter) for letter in "what color is it?"]
    assert item["image"].shape == (1, 3, 4, 4) and close(item["image"][0], COLOURS["green"], 0)
    place = easy.answers.index("green")
    assert item["targets"]["scores"].tolist() == [
        float(k == place) for k in range(len(easy.answers))
    ]


def test_items_without_a_text_encoder_have_no_text(easy):
    assert "text" not in easy.clips("test")[0]


def test_equal_questions_are_encoded_once(easy):
    encoder = Letters()
    clips = easy.clips("train", encoder)
    for index in range(len(clips)):
        clips[index]
    assert sorted(encoder.asked) == ["is it red?", "what color is it?"]


def test_in_training_the_questions_about_an_image_are_neighbours(tmp_path, cache):
    images = ["b.png", "a.png", "b.png", "c.png", "a.png"]
    for name in images:
        save_image(tmp_path / name)
    rows = [f"{name},what is {number}?,red" for number, name in enumerate(images)]
    table = write_table(tmp_path, "image,question,answer", *rows)
    clips = PicturedQuestions(str(table), test=str(table), image_size=4, held_out=0).clips("train")
    texts = [question.text for question in clips.questions]
    assert texts == [f"what is {number}?" for number in (0, 2, 1, 4, 3)]
    assert clips.group == [2, 2, 1]


def test_training_begins_with_simple_questions(tmp_path, cache):
    write_easy(tmp_path, "train", 10)
    write_easy(tmp_path, "test", 4)
    files = [str(tmp_path / split / "questions.json") for split in ("train", "test")]
    own = {"held_out": 0, "image_size": 4}
    source = PicturedQuestions(files[0], simple=files[1], first_epochs=2, **own)
    clips, rest, simple = (source.clips("train"), *map(source.questions, ("train", "simple")))
    assert len(rest) > len(simple) > 0 and clips.questions == [*rest, *simple]
    assert sum(clips.group) == len(clips) == len(rest) + len(simple)
    assert [item["id"] for item in clips] == [q.id for q in clips.questions]  # for an evaluation
    for epoch in (0, 1):
        clips.begin_epoch(epoch)
        assert {item["id"] for item in clips} == {question.id for question in simple}
    clips.begin_epoch(2)
    assert [item["id"] for item in clips] == [q.id for q in [*rest, *simple]]
    clips.begin_epoch(1)  # also of a run that goes on
    image = source.clips("simple")[0]["image"]
    assert torch.equal(clips[len(rest)]["image"], image)
    assert source.answers == PicturedQuestions(files[0], **own).answers
    assert len(PicturedQuestions(files[0], **own).clips("train")) == len(rest)
    assert source.texts("train") == [question.text for question in clips.questions]
    assert source.texts("simple") == [question.text for question in simple]


def test_simple_questions_about_held_out_images_are_left_out(tmp_path, cache):
    write_easy(tmp_path, "train", 10)
    file = str(tmp_path / "train/questions.json")
    source = PicturedQuestions(file, simple=file, held_out=0.3, image_size=4)
    trained = {question.image for question in source.clips("train").simple.questions}
    held = {question.image for question in source.questions("validation")}
    assert held and not trained & held
    assert len(trained | held) == 10


def test_the_built_in_set_has_simple_pictures_only_if_training_begins_with_them(cache):
    for epochs in (0, 1):
        source = QUESTION_SETS["scenes"](12, first_epochs=epochs)
        assert len(source.clips("train")) == 12 * 4 * (1 + epochs)
        assert source.clips("train").questions[:48] == source.questions("train")


def test_simple_questions_that_cannot_be_used_are_an_error(tmp_path, cache):
    write_easy(tmp_path, "train", 10)
    file = tmp_path / "simple.csv"
    file.write_text("image,question,answer\nbad.png,what color is it?,red\n")
    (tmp_path / "bad.png").write_bytes(b"no picture")
    settings = {"simple": str(file), "held_out": 0, "bad": "leave_out", "max_bad": 1.0}
    source = PicturedQuestions(str(tmp_path / "train/questions.json"), image_size=4, **settings)
    with pytest.raises(
        ValueError, match=r"simple.csv \(data.simple\) has no question for training"
    ):
        source.clips("train")


def test_an_encoder_that_prepares_gets_all_texts_at_once(easy):
    class Prepared(Letters):
        def prepare(self, texts):
            self.prepared = list(texts)

    encoder = Prepared()
    clips = easy.clips("test", encoder)
    assert encoder.prepared == easy.texts("test") and not encoder.asked
    assert len(clips[0]["text"]) == 17


def test_items_become_a_batch_also_in_workers(easy):
    clips = easy.clips("train", Letters())
    loader = DataLoader(clips, 6, collate_fn=collate, num_workers=2)
    batch = next(iter(loader))
    assert batch.inputs["image"].values.shape == (6, 3, 4, 4)
    assert batch.inputs["image"].values.dtype == torch.uint8
    assert batch.inputs["text"].lengths.tolist() == [17, 10] * 3
    assert batch.targets["scores"].shape == (6, len(easy.answers))
    assert batch.targets["scores"].sum(1).tolist() == [1] * 6
    assert [part.inputs["image"].num_clips for part in batch.chunks(4)] == [4, 2]
    assert len(FirstClips(clips, 3)) == 3


def test_validation_is_held_out_by_images(easy, caplog):
    with caplog.at_level(logging.WARNING):
        train, held = easy.questions("train"), easy.questions("validation")
    assert easy.splits == ["train", "validation", "test"]
    assert len(train) == 18 and len(held) == 2
    assert not {q.image for q in train} & {q.image for q in held}
    assert caplog.text.count("1 image, with 2 questions, are held out for validation") == 1
    assert easy.describe("validation") == "train/questions.json, 2 questions about 1 image held out"
    assert easy.describe("train") == "train/questions.json, 18 questions about 9 images"


def test_held_out_images_depend_on_names_alone():
    questions = [Question(str(n), "x?", (), f"{n % 20}.png") for n in range(60)]
    drawn = draw_images(questions, 0.2, "q")
    assert len(drawn) == 4 and drawn == draw_images(questions[::-1], 0.2, "q")
    assert len(draw_images(questions, 0.001, "q")) == 1
    assert len(draw_images(questions, 0.999, "q")) == 19
    with pytest.raises(ValueError, match="about one image, so none can be held out"):
        draw_images(questions[:1], 0.2, "q")


def test_train_and_held_out_images_are_one_file_of_the_cache(easy, cache):
    easy.extract()
    assert len(list(cache.glob("*.pixels"))) == 2  # of train and test


def test_the_vocabulary_is_that_of_the_training_unless_it_is_set(easy):
    assert set(easy.answers) == {"yes", "no", *COLOURS}
    assert easy.answers[0] == "no"  # of three images in four
    easy.answers = ["blue", "red"]
    scores = [easy.clips("test")[k]["targets"]["scores"].tolist() for k in range(6)]
    assert scores == [[0, 1], [0, 0], [0, 0], [0, 0], [1, 0], [0, 0]]


def test_the_vocabulary_is_cut_to_the_most_frequent(tmp_path, cache):
    data = PicturedQuestions(str(write_easy(tmp_path)), num_answers=1, held_out=0)
    assert data.answers == ["no"] and data.splits == ["train"]


def test_training_without_answers_is_an_error(tmp_path, cache):
    file = write_table(tmp_path, "image,question", "a.png,what?")
    save_image(tmp_path / "a.png")
    data = PicturedQuestions(str(file), held_out=0)
    with pytest.raises(
        ValueError, match="no question of data.train has an answer, so there are none"
    ):
        data.clips("train")
    with pytest.raises(ValueError, match="the data has no split 'test'"):
        data.clips("test")
    with pytest.raises(ValueError, match="no split 'train'"):
        PicturedQuestions(test=str(file)).clips("test")


def test_max_clips_cuts_the_questions_and_their_images(easy, cache):
    easy.max_clips = 3
    easy.extract()
    assert [len(easy.questions(split)) for split in easy.splits] == [3, 2, 3]
    sizes = sorted(file.stat().st_size for file in cache.glob("*.pixels"))
    assert sizes == [1 * 48, 2 * 48, 2 * 48]


def test_vqa_v2_by_its_folder(tmp_path, cache):
    write_vqa(tmp_path, "train2014", 5)
    write_vqa(tmp_path, "val2014", 3)
    data = QUESTION_SETS["vqa_v2"](str(tmp_path), image_size=4)
    assert [len(data.questions(split)) for split in data.splits] == [3, 1, 2]
    assert data.answers == ["yes", "no"]
    item = data.clips("test")[1]
    assert item["id"] == "20" and close(item["image"][0], COLOURS["red"])
    torch.testing.assert_close(item["targets"]["scores"], torch.tensor([1, 2 / 3]))


def test_vqa_v2_by_its_files(tmp_path, cache):
    files = write_vqa(tmp_path / "a", "train2014", 5)
    images = str(tmp_path / "a" / "train2014")
    data = PicturedQuestions(files, images={"train": images}, image_size=4)
    assert len(data.clips("validation")) == 1
    with pytest.raises(ValueError, match="data.images is missing: name the folder of the images"):
        PicturedQuestions(files).clips("train")
    with pytest.raises(ValueError, match="data.images: there is no folder"):
        PicturedQuestions(files, images=str(tmp_path / "none")).clips("train")
    with pytest.raises(ValueError, match="has none of 4 images that the questions name"):
        PicturedQuestions(files, images=str(tmp_path)).clips("train")


@pytest.mark.parametrize("bad", ["missing", "leave_out"])
def test_questions_about_unreadable_images(tmp_path, cache, caplog, bad):
    lines = [f"{name}.png,what?,red" for name in "abc"]
    file = write_table(tmp_path, "image,question,answer", *lines)
    for name in "ac":
        save_image(tmp_path / f"{name}.png")
    data = PicturedQuestions(str(file), held_out=0, bad=bad, max_bad=0.5, image_size=4)
    with caplog.at_level(logging.WARNING):
        clips = data.clips("train")
        data.clips("train")
    assert caplog.text.count("1 of 3 images in") == 1 and "b.png: no such file" in caplog.text
    lengths = [len(clips[k]["image"]) for k in range(len(clips))]
    assert lengths == ([1, 0, 1] if bad == "missing" else [1, 1])
    batch = collate([clips[k] for k in range(len(clips))])
    assert batch.inputs["image"].lengths.tolist() == lengths
    with pytest.raises(ValueError, match=r"more than data.max_bad \(0.1\)"):
        PicturedQuestions(str(file), held_out=0, bad=bad, max_bad=0.1, image_size=4).extract()


def test_ceilings_come_from_a_file(tmp_path):
    file = tmp_path / "ceilings.json"
    file.write_text(json.dumps({"test": {"question alone": 61.2}}))
    data = PicturedQuestions(test="q.csv", ceilings=str(file))
    assert data.ceiling("test") == {"question alone": 61.2}
    assert data.ceiling("train") is None
    assert PicturedQuestions(test="q.csv").ceiling("test") is None
    file.write_text("[]")
    with pytest.raises(ValueError, match="must hold"):
        data.ceiling("test")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"held_out": 1.0}, r"data.held_out \(1.0\) is a share"),
        ({"image_size": 0}, "data.image_size is 0; it must be between 1 and 4096"),
        ({"image_size": 5000}, "data.image_size is 5000"),
        ({"num_answers": 0}, "data.num_answers is 0; it must be at least 1"),
        ({"bad": "ignore"}, "data.bad: unknown 'ignore'"),
        ({"max_bad": 50}, "data.max_bad is 50"),
        ({"first_epochs": -1, "simple": "q.csv"}, "data.first_epochs is -1; it must be at least 0"),
        ({"first_epochs": 2}, "above 0 only with a file of questions in data.simple"),
        ({"train": {"question": "q"}}, "data.train.question is unknown"),
    ],
)
def test_wrong_settings_are_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        PicturedQuestions(**({"train": "q.csv"} | setting))


def test_a_config_can_name_every_setting():
    files = {"questions": "q.json", "annotations": "a.json"}
    own = {"train": files, "test": "t.csv", "images": {"train": "x", "test": "y"}, "held_out": 0.2}
    check("data", own, QUESTION_SETS["questions"])
    check("data", {"folder": "x"}, QUESTION_SETS["easy_vqa"])
    check("data", {"folder": "x", "validation": files, "images": "y"}, QUESTION_SETS["vqa_v2"])
    with pytest.raises(ValueError, match="data.folder is missing"):
        check("data", {}, QUESTION_SETS["easy_vqa"])
