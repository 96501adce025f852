"""Files of questions: the published forms, tables, and one line for every mistake."""

import json
from pathlib import Path

import pytest

from fusion.data.questions.places import Place, place_of, read_questions
from fusion.data.questions.question import Question
from tests.data.questions.made import vqa_content, write_easy, write_table, write_vqa


def read(path, annotations=None):
    return read_questions(Place(path, annotations))


def refuse(path, message, annotations=None):
    with pytest.raises(ValueError, match=message) as caught:
        read(path, annotations)
    assert "\n" not in str(caught.value)
    assert str(path.parent) in str(caught.value)


def test_easy_vqa(tmp_path):
    found = read(write_easy(tmp_path))
    assert found.images == tmp_path / "train" / "images"
    assert found.questions[:3] == [
        Question("0.png", "what color is it?", ("red",), "0.png", "other", "what color"),
        Question("0.png#2", "is it red?", ("yes",), "0.png", "yes/no", "is it"),
        Question("1.png", "what color is it?", ("green",), "1.png", "other", "what color"),
    ]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (["what?", 3, 0], r"question 8: the answer is 3, no text; write it in quotes$"),
        (["what?", None, 0], r"question 8: the answer is None, no text"),
        (["what?", ["red"], 0], r"question 8: the answer is \['red'\], no text"),
        ([5, "red", 0], r"question 8: the question is 5, no text"),
        ([" ", "red", 0], r"question 8: the question is empty; write one"),
        (["what?", "red"], r"question 8: \['what\?', 'red'\] is not \[question, answer, image"),
        (["what?", "red", "0"], r"is not \[question, answer, image number\]$"),
        ("what?", r"is not \[question, answer, image number\]$"),
    ],
)
def test_mistakes_in_easy_vqa(tmp_path, row, message):
    refuse(write_easy(tmp_path, more=[row]), message)


def test_vqa_v2(tmp_path):
    files = write_vqa(tmp_path)
    found = read_questions(place_of("data.train", files))
    image = "COCO_train2014_000000000001.jpg"
    ten = ("yes",) * 8 + ("No",) * 2
    assert found.questions[0] == Question("10", "Is it 1?", ten, image, "yes/no", "is it")
    assert len(found.questions) == 2 and found.subset == "train2014" and found.images is None


def test_vqa_v2_without_annotations_has_no_answers(tmp_path):
    files = write_vqa(tmp_path)
    found = read_questions(place_of("data.test", files["questions"])).questions
    assert [(q.id, q.answers, q.answer_type) for q in found] == [("10", (), ""), ("20", (), "")]


def test_question_ids_of_vqa_v2_are_unique(tmp_path):
    content, _ = vqa_content()
    content["questions"][1]["question_id"] = 10
    (tmp_path / "q.json").write_text(json.dumps(content))
    refuse(tmp_path / "q.json", r"1 ids are those of several questions \(10\)")


def test_the_test_of_vqa_v2_and_abstract_scenes_name_their_images(tmp_path):
    content, _ = vqa_content("test-dev2015")
    file = tmp_path / "q.json"
    file.write_text(json.dumps(content))
    assert read(file).questions[0].image == "COCO_test2015_000000000001.jpg"
    file.write_text(json.dumps(content | {"data_type": "abstract_v002"}))
    assert read(file).questions[0].image == "abstract_v002_test2015_000000000001.png"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda q, a: a["annotations"].pop(), "question 20 has no annotation of its own; name"),
        (lambda q, a: q["questions"].pop(), "answers 1 questions that .* does not have"),
        (
            lambda q, a: a["annotations"][0].update(image_id=9),
            "question 10 is about image 9, but 1",
        ),
        (
            lambda q, a: q["questions"].append(q["questions"][0]),
            "question 10 has no annotation of its",
        ),
        (lambda q, a: a["annotations"][1].update(question_id=10), "question 10 is answered twice"),
        (lambda q, a: q["questions"][0].pop("image_id"), "question 0: image_id is None"),
        (lambda q, a: q["questions"][0].pop("question"), "question 0: the question is None, no"),
        (lambda q, a: q["questions"][0].update(question=""), "question 0: the question is empty"),
        (lambda q, a: q.pop("data_subtype"), "no data_subtype"),
        (lambda q, a: q.update(questions=3), "no list of questions"),
        (lambda q, a: q.update(questions=[]), "answers 2 questions"),
        (lambda q, a: a.pop("annotations"), "no list of annotations"),
        (lambda q, a: a["annotations"][0].pop("answers"), "annotation 0: no list of answers"),
        (
            lambda q, a: a["annotations"][0]["answers"][3].update(answer=7),
            "question 0: the answer is 7, no text",
        ),
    ],
)
def test_mistakes_in_vqa_v2(tmp_path, change, message):
    contents = vqa_content()
    change(*contents)
    files = tmp_path / "q.json", tmp_path / "a.json"
    for file, content in zip(files, contents, strict=True):
        file.write_text(json.dumps(content))
    refuse(*files[:1], message, files[1])


def test_a_table_of_own_questions(tmp_path):
    file = write_table(
        tmp_path,
        "Image,Question,Answers,answer_type",
        'a.jpg,"Which colours, please?",red | Blue|red,colour',
        "a.jpg,How many?,2,",
        "b/c.jpg,Unknown?,,",
    )
    found = read(file)
    assert found.images == tmp_path
    asked = "Which colours, please?"
    assert found.questions == [
        Question("a.jpg", asked, ("red", "Blue", "red"), "a.jpg", "colour", "which colours,"),
        Question("a.jpg#2", "How many?", ("2",), "a.jpg", "number", "how many"),
        Question("b/c.jpg", "Unknown?", (), "b/c.jpg", "", "unknown"),
    ]


def test_a_table_may_have_ids_tabs_and_one_answer(tmp_path):
    lines = "id\tquestion\tanswer\timage", "7\tIs it, or not?\tyes|no\ta.jpg"
    (question,) = read(write_table(tmp_path, *lines, name="q.tsv")).questions
    assert question == Question("7", "Is it, or not?", ("yes|no",), "a.jpg", "other", "is it,")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            ["image,question,anwser", "a,b,c"],
            "line 1: the column 'anwser' is unknown; did you mean 'answer'",
        ),
        (["image,answer", "a,b"], "line 1: no column question; the first line names"),
        (["image,question,image", "a,b,c"], "line 1: the column 'image' is there twice"),
        (["image,question,answer", "a, ,c"], "line 2: the question is empty"),
        (["image,question,answer", ",b,c"], "line 2: the image is empty"),
        (["image,question,answer", "a,b,c,d"], "line 2: 4 fields in 3 columns"),
        (
            ["image,question,answer,id", "a,b,c,1", "a,b,c,1"],
            "1 ids are those of several questions .1",
        ),
        (["image,question,answer,id", "a,b,c,1", "a,b,c,"], "line 3: the id is empty"),
        (["image,question,answer"], "no questions"),
        ([""], "line 1: no column image and question"),
    ],
)
def test_mistakes_in_a_table(tmp_path, lines, message):
    refuse(write_table(tmp_path, *lines), message)


def test_files_that_are_no_questions(tmp_path):
    refuse(tmp_path / "none.json", "none.json: no such file; check the path")
    refuse(tmp_path / "none.csv", "none.csv: no such file; check the path")
    refuse(tmp_path / "a" / "b" / "none.json", r"no such file \(there is no folder .*/a\)")
    broken = write_table(tmp_path, '[["what?",', name="q.json")
    refuse(broken, r"q.json, line \d: not JSON .*is the file whole\?")
    refuse(write_table(tmp_path, '{"a": 1}', name="q.json"), "no file of questions; it can be")
    refuse(write_table(tmp_path, "[]", name="q.json"), "no questions; it can be")
    (tmp_path / "q.json").write_bytes(b"\xff\xfe\x00")
    refuse(tmp_path / "q.json", "cannot be read")
    refuse(tmp_path, "cannot be read")


def test_annotations_belong_to_vqa_v2_alone(tmp_path):
    refuse(write_easy(tmp_path), "annotations do not belong to it", tmp_path / "a.json")


def test_a_place_names_a_file_or_two():
    assert place_of("data.train", "q.csv") == Place(Path("q.csv"))
    for value, message in [
        ({"question": "q"}, "data.train.question is unknown; did you mean 'questions'"),
        ({"annotations": "a"}, "data.train.questions is missing"),
        ({"questions": 3}, "data.train.questions must be a file; got 3"),
    ]:
        with pytest.raises(ValueError, match=message):
            place_of("data.train", value)
