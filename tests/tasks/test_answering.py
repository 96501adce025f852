"""Question answering from the config to the answer of a single question."""

import argparse
import json
import re

import numpy as np
import pytest
from PIL import Image

from fusion.commands.ask import ask
from fusion.commands.compare import compare
from fusion.commands.evaluate import evaluate
from fusion.commands.train import train
from fusion.config import ConfigError, load_config
from tests.tasks.pictures import config_of, write_questions


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_questions(tmp_path_factory.mktemp("questions"))


@pytest.fixture(scope="module")
def blind(folder, tmp_path_factory):
    """A run that reads the question alone."""
    output = tmp_path_factory.mktemp("runs") / "blind"
    changes = {"model.modalities.image": "null", "trainer.epochs": 2}
    widths = "model.modalities.image.encoder.widths"
    words = [w for w in config_of(folder, output, **changes) if not w.startswith(widths)]
    train(load_config("vqa", words))
    return output


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory):
    output = tmp_path_factory.mktemp("runs") / "vqa"
    train(load_config("vqa", config_of(folder, output)))
    return output


def asked(run, image, question, **options):
    given = {"top": 5, "attention": None, "json": True, "trust": False} | options
    return argparse.Namespace(run=str(run), image=str(image), question=question, **given)


def test_a_run_learns_and_reports_by_type_of_question(run):
    result = json.loads((run / "results.json").read_text())
    rows = result["kinds"]
    assert {"all", "answer: yes/no", "answer: other", "question: what colour"} <= {*rows}
    assert rows["all"]["questions"] == 18 and result["counted"] == 9
    assert rows["question: what colour"]["accuracy"] > 90
    assert rows["all"]["accuracy"] > max(70, result["frequent_by_type"]["accuracy"])
    assert rows["all"]["top5"] == 100  # there are five answers
    report = (run / "report.html").read_text()
    assert report.count('alt="image of the question"') == 4
    assert report.count('alt="where the question looked"') == 4
    assert "Which answers are confused" in report


def test_a_checkpoint_keeps_its_answers_and_is_evaluated_alike(run, capsys):
    answers = json.loads((run / "best" / "answers.json").read_text())
    assert sorted(answers) == ["blue", "green", "no", "red", "yes"]
    result = evaluate(run, None, None)
    assert result["kinds"] == json.loads((run / "results.json").read_text())["kinds"]
    assert "question: what colour" in capsys.readouterr().out


def test_a_question_about_an_image_is_answered(run, folder, tmp_path, capsys):
    looked = tmp_path / "looked.png"
    ask(asked(run, folder / "images/test1.png", "what colour is it", attention=str(looked)))
    best, *others = json.loads(capsys.readouterr().out)
    assert best["answer"] == "green" and best["probability"] > others[0]["probability"]
    assert sum(one["probability"] for one in [best, *others]) == pytest.approx(1, abs=1e-5)
    picture, seen = (np.asarray(Image.open(p)) for p in (folder / "images/test1.png", looked))
    assert seen.shape == picture.shape and (seen <= picture.max()).all()
    ask(asked(run, folder / "images/test1.png", "what colour is it", json=False, top=2))
    assert capsys.readouterr().out.splitlines()[0].startswith("green")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"question": " "}, "the question is empty"),
        ({"question": "zzz"}, "knows no word of 'zzz'"),
        ({"image": "missing.png"}, "missing.png"),
        ({"attention": "x.jpg"}, "name a .png file"),
        ({"run": "nowhere"}, "there is no checkpoint at nowhere"),
    ],
)
def test_a_mistake_in_asking_is_one_line(run, folder, change, message):
    given = asked(run, folder / "images/test1.png", "what colour is it")
    for name, value in change.items():
        setattr(given, name, value)
    with pytest.raises(ValueError, match=message) as caught:
        ask(given)
    assert "\n" not in str(caught.value)


def test_without_an_image_the_question_alone_is_answered(blind, folder):
    result = json.loads((blind / "results.json").read_text())
    assert result["kinds"]["question: what colour"]["accuracy"] < 60
    with pytest.raises(ConfigError, match="reads no pictures"):
        ask(asked(blind, folder / "images/test1.png", "what colour is it"))


def test_runs_are_compared_by_type_over_the_same_images(run, blind, tmp_path, capsys):
    compare([str(run), str(blind)], out=tmp_path)
    comparison = json.loads((tmp_path / "comparison.json").read_text())
    seen, alone = comparison["methods"].values()
    for row in ("all", "question: what colour"):
        result = json.loads((run / "results.json").read_text())["kinds"][row]
        assert seen["kinds"][row]["accuracy"] == pytest.approx(result["accuracy"])
        low, high = seen["kinds"][row]["accuracy_interval"]
        assert low <= result["accuracy"] <= high  # of these questions alone
    assert alone["kinds"]["question: what colour"]["difference"]["accuracy"] < -30
    assert "question: what colour" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": "{name: combinatorial, terms: {t|i: 1}}"}, "needs loss.name: answers"),
        ({"trainer.best": "t->va R@1"}, "trainer.best: unknown 't->va R@1'; choose from all acc"),
        ({"model.fusion": "sum"}, "unknown 'sum'"),
        ({"data": "{name: demo}"}, "'demo' has no questions"),
    ],
)
def test_a_config_that_does_not_fit_is_one_line(folder, tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        train(load_config("vqa", config_of(folder, tmp_path / "x", **change)))


def test_it_is_said_which_answers_are_frequent(folder, tmp_path, caplog):
    words = config_of(folder, tmp_path / "run", **{"trainer.epochs": 1, "data.num_answers": 4})
    with caplog.at_level("WARNING"):
        train(load_config("vqa", words))
    said = "train: 4 answers to 48 questions; most frequent: no 17 (35.4 %), "
    assert caplog.text.count(said) == 1
    report = (tmp_path / "run" / "report.html").read_text()
    section = report[report.index("How frequent answers are") :]
    assert said.removeprefix("train: ") in section
    row = re.search(r'<th scope="row">no</th><td>17</td><td>35.4</td><td>(\d+)</td><td>', section)
    answers = [line.rsplit(",", 1)[1] for line in (folder / "test.csv").read_text().splitlines()]
    assert int(row[1]) == answers.count("no")
    assert "questions have another answer, which the model cannot give" in section


def test_more_answers_than_there_are_is_no_mistake(folder, tmp_path):
    words = {"trainer.epochs": 1, "data.num_answers": 10_000}
    train(load_config("vqa", config_of(folder, tmp_path / "run", **words)))
    assert len(json.loads((tmp_path / "run/best/answers.json").read_text())) == 5
