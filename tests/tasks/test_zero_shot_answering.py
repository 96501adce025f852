"""A model of retrieval that answers questions about pictures, beside one that was trained to."""

import json

import pytest
import torch
from PIL import Image

import fusion
from fusion.commands.compare import compare
from fusion.commands.evaluate import evaluate
from fusion.commands.train import train
from fusion.config import ConfigError, load_config
from fusion.data.questions.tables import read_question_table
from fusion.tasks import make_task
from fusion.tasks.question_answering.result import answer_scores
from fusion.tasks.question_answering.zero_shot import NEVER, Here, Settings
from tests.tasks.pictures import config_of, write_questions


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pictures with a question whose answers are words of the built-in corpus, and one that is not
    known at all."""
    folder = write_questions(tmp_path_factory.mktemp("questions"))
    for split in ("train", "validation", "test"):
        text = (folder / f"{split}.csv").read_text().replace("is it ", "a ")
        (folder / f"{split}.csv").write_text(text.replace("what colour is it", "a star"))
    return folder


def test_answers_that_the_model_does_not_know_are_named(once, data, caplog):
    with caplog.at_level("WARNING"):
        evaluate(once.tiny_run(), "vqa/zero_shot", None, [f"data={data}"], quiet=True)
    assert "knows no word of 3 of 5 answers (no, green, yes), and never gives them" in caplog.text


@pytest.fixture(scope="module")
def data(folder):
    files = ", ".join(f"{split}: {folder}/{split}.csv" for split in ("train", "test"))
    return f"{{name: questions, {files}, image_size: 16}}"


@pytest.fixture(scope="module")
def file(once, data, tmp_path_factory):
    """The file of an evaluation, with its page and all scores beside it."""
    made = tmp_path_factory.mktemp("zero") / "zero_shot.json"
    words = [f"data={data}", "evaluation.questions_in_report=3"]
    page = made.with_suffix(".html")
    answered = []

    def keep(found):
        answered.append(found)
        return answer_scores(found)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fusion.tasks.question_answering.zero_shot.answer_scores", keep)
        evaluate(once.tiny_run(), "vqa/zero_shot", made, words, quiet=True, report=page)
    torch.save((answered[0].answers, answered[0].scores), made.with_suffix(".pt"))
    return made


def best_by_hand(run, folder, question, answers):
    """The answer whose text is nearest to the picture, one after the other."""
    model = fusion.load(run)
    size = (16, 16)
    with Image.open(folder / question.image) as picture:
        seen = model.encode({"video": picture.convert("RGB").resize(size)}, "v")
    scores = {}
    for answer in answers:
        text = f"{question.text} {answer}"
        scores[answer] = float(model.similarity(seen, model.encode({"text": text}, "t")))
    return max(scores, key=scores.get), scores


def test_the_text_nearest_to_the_picture_wins(once, folder, file):
    result = json.loads(file.read_text())
    assert result["gallery"] == 5 and result["counted"] == 9
    questions = read_question_table(folder / "test.csv").questions
    answers = ["blue", "red"]  # the smallest corpus knows no others
    found = [best_by_hand(once.tiny_run(), folder, q, answers) for q in questions]
    names, scores = torch.load(file.with_suffix(".pt"))
    expected = torch.tensor([[values.get(name, NEVER) for name in names] for _, values in found])
    known = torch.tensor([name in answers for name in names])
    torch.testing.assert_close(
        scores[:, known], expected[:, known] * Settings().scale, atol=1e-4, rtol=0
    )
    assert (scores[:, ~known] < NEVER / 2).all()
    right = [q.answers[0] == best for q, (best, _) in zip(questions, found, strict=True)]
    assert result["kinds"]["all"]["accuracy"] == pytest.approx(100 * sum(right) / len(right))
    assert len({round(score, 6) for score in found[0][1].values()}) == 2


def test_the_page_shows_questions_without_attention(file):
    page = file.with_suffix(".html").read_text()
    assert page.count('alt="image of the question"') == 3
    assert "where the question looked" not in page
    assert "How frequent answers are" in page


def test_it_stands_in_the_table_of_models_that_were_trained(folder, file, tmp_path, capsys):
    run = tmp_path / "vqa"
    train(load_config("vqa", config_of(folder, run, **{"trainer.epochs": 1})))
    capsys.readouterr()
    compare([str(run), f"zero-shot={file}"], out=tmp_path / "both")
    assert "zero-shot" in capsys.readouterr().out
    methods = json.loads((tmp_path / "both" / "comparison.json").read_text())["methods"]
    row = methods["zero-shot"]["kinds"]["all"]
    assert row["accuracy"] == json.loads(file.read_text())["kinds"]["all"]["accuracy"]
    assert "difference" in row


def test_nothing_of_a_picture_is_left_in_the_cache(once, data, tmp_path, monkeypatch):
    monkeypatch.setenv("FUSION_CACHE", str(tmp_path))
    evaluate(once.tiny_run(), "vqa/zero_shot", None, [f"data={data}"], quiet=True)
    left = {path.parent.name for path in tmp_path.rglob("*") if path.is_file()}
    assert left <= {"images"}, left
    assert hasattr(Here(), "pieces")


def test_an_unreadable_picture_gets_the_first_answer(once, folder, tmp_path):
    for name in ("train.csv", "test.csv"):
        (tmp_path / name).write_text((folder / name).read_text())
    (tmp_path / "images").mkdir()
    for path in (folder / "images").iterdir():
        (tmp_path / "images" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "images" / "test0.png").write_text("no picture")
    files = f"train: {tmp_path}/train.csv, test: {tmp_path}/test.csv"
    words = [f"data={{name: questions, {files}, image_size: 16, max_bad: 0.5}}"]
    result = evaluate(once.tiny_run(), "vqa/zero_shot", None, words, quiet=True)
    assert result["kinds"]["all"]["questions"] == 18


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data={name: demo}"], "'demo' has no questions about pictures; take scenes"),
        (["evaluation.prompt=what"], "evaluation.prompt must have {answer}"),
        (["evaluation.promt=x"], "evaluation.promt is unknown; did you mean 'prompt'"),
    ],
)
def test_a_mistake_is_one_line(once, data, words, message):
    with pytest.raises(ValueError, match=message) as caught:
        words = words if words[0].startswith("data=") else [f"data={data}", *words]
        evaluate(once.tiny_run(), "vqa/zero_shot", None, words, quiet=True)
    assert "\n" not in str(caught.value)


def test_nothing_is_trained(data):
    config = load_config("vqa/zero_shot", [f"data={data}"], load_config("eao"))
    with pytest.raises(ConfigError, match=r"test it by: fusion evaluate RUN --set vqa/zero_shot"):
        make_task(config).build()


def test_the_scale_changes_no_order():
    assert Settings().scale > 0
    scores = torch.randn(5)
    assert (scores * Settings().scale).argsort().equal(scores.argsort())
