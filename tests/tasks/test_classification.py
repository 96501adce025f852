"""Classification of films from the config to the report, on films of two classes."""

import json

import pytest
import torch

import fusion
from fusion.commands.compare import compare
from fusion.commands.evaluate import evaluate
from fusion.commands.train import train
from fusion.config import ConfigError, load_config
from fusion.convert import convert_checkpoint
from fusion.tasks.classification.task import NAMES, read_classes
from tests.convert import test_tsm as published
from tests.data.labelled.made import write_films

NETWORK = "{block: basic, layers: [1, 1, 1, 1], widths: [8, 8, 8, 8]}"


def words(folder, output, **changes):
    given = {
        "data": f"{{name: labelled_films, folder: {folder}, frames: 4, frame_size: 32}}",
        "output": output,
        "model.network": NETWORK,
        "model.crop_size": 32,
        "model.crop_scales": "[1.0]",
        "model.batchnorm_group": 4,
        "model.dropout": 0,
        "trainer.batch_size": 8,
        "trainer.learning_rate_batch": 8,
        "trainer.optimizer": "adamw",
        "trainer.momentum": 0,
        "trainer.nesterov": "false",
        "trainer.learning_rate": 1e-2,
        "trainer.epochs": 20,
        "evaluation.films_in_report": 4,
    } | changes
    return [f"{key}={value}" for key, value in given.items()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_films(tmp_path_factory.mktemp("films"), 8)


@pytest.fixture(scope="module")
def runs(folder, tmp_path_factory):
    """A run with shift, and one without, which cannot tell the order."""
    output = tmp_path_factory.mktemp("runs")
    train(load_config("tsm", words(folder, output / "tsm")))
    train(load_config("tsm/no_shift", words(folder, output / "plain")))
    return output


def rows(run):
    return json.loads((run / "results.json").read_text())["classes"]


def test_the_order_is_learnt_with_shift_and_not_without(runs):
    assert rows(runs / "tsm")["all"]["top1"] == 100
    assert rows(runs / "plain")["all"]["top1"] <= 60
    low, high = rows(runs / "plain")["all"]["top1_interval"]
    assert low <= rows(runs / "plain")["all"]["top1"] <= high
    assert {*rows(runs / "tsm")} == {"all", "class: falls", "class: rises"}
    assert rows(runs / "tsm")["all"]["mean_class"] == 100
    log = [json.loads(line) for line in (runs / "tsm" / "metrics.jsonl").read_text().splitlines()]
    assert any(row.get("all top1") == 100 for row in log)


def test_the_report_shows_films_with_predictions_over_time(runs):
    report = (runs / "plain" / "report.html").read_text()
    shown = report.count('alt="frames of the film"')
    assert shown == report.count('aria-label="probability of classes over time"') >= 4
    assert "Which classes are confused" in report and "chosen:" in report


def test_a_checkpoint_is_evaluated_alike_and_with_several_views(runs, capsys):
    assert json.loads((runs / "tsm" / "best" / "classes.json").read_text()) == ["falls", "rises"]
    result = evaluate(runs / "tsm", "validation", None)
    assert result["classes"] == rows(runs / "tsm")
    several = ["evaluation.clips=3", "evaluation.crops=3"]
    result = evaluate(runs / "tsm", "validation", None, several)
    # What so small a network says of other frames than in training depends on the processor.
    assert {*result["classes"]} == {*rows(runs / "tsm")}
    assert "3 clips and 3 crops of each" in result["protocol"]
    assert "class: rises" in capsys.readouterr().out


def test_a_classifier_embeds_nothing(runs):
    with pytest.raises(ValueError, match="classifies films and embeds nothing; name a run"):
        fusion.load(runs / "tsm")


def test_runs_are_compared(runs, tmp_path, capsys):
    compare([f"tsm={runs / 'tsm'}", f"plain={runs / 'plain'}"], out=tmp_path)
    comparison = json.loads((tmp_path / "comparison.json").read_text())
    plain = comparison["methods"]["plain"]["classes"]["all"]
    assert plain["difference"]["top1"] < -30


def test_chunks_and_groups_of_batchnorm_change_only_rounding(folder, tmp_path):
    results = []
    for chunk in (8, 4):
        output = tmp_path / str(chunk)
        changes = {"trainer.chunk_size": chunk, "trainer.epochs": 1, "trainer.log_every": 1}
        train(load_config("tsm", words(folder, output, **changes)))
        rows = [json.loads(row) for row in (output / "metrics.jsonl").read_text().splitlines()]
        results.append([row["loss"] for row in rows if row["event"] == "train"])
    assert len(results[0]) == 2
    torch.testing.assert_close(*map(torch.tensor, results), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": "{name: answers}"}, "task classification needs loss.name: classes"),
        ({"trainer.best": "all top2"}, "trainer.best: unknown 'all top2'; choose from all top1"),
        ({"model": "{name: eao}"}, "needs model.name: classifier|is missing"),
        (
            {"data": "{name: demo}"},
            "'demo' has no classes; choose from labelled_films, order",
        ),
        ({"evaluation.crops": 2}, "crops must be 1 or 3"),
        ({"model.shift_dif": 4}, "model.shift_dif is unknown; did you mean 'shift_div'"),
    ],
)
def test_a_config_that_does_not_fit_is_one_line(folder, tmp_path, change, message):
    given = words(folder, tmp_path / "x")
    if "model" in change:
        given = [word for word in given if not word.startswith("model.")]
    kept = [word for word in given if word.split("=")[0] not in change]
    with pytest.raises(ConfigError, match=message) as caught:
        train(load_config("tsm", [*kept, *(f"{k}={v}" for k, v in change.items())]))
    assert "\n" not in str(caught.value)


def evaluate_converted(checkpoint, folder, *words):
    size = ["data.frame_size=32", "data.frames=4", "model.crop_size=32"]
    return evaluate(checkpoint, "validation", None, [f"data.folder={folder}", *size, *words])


def test_classes_of_a_converted_model_are_never_guessed(folder, tmp_path):
    checkpoint = tmp_path / "out"
    convert_checkpoint(published.save(tmp_path, published.published("tsm_basic")), checkpoint)
    with pytest.raises(ConfigError, match=r"no classes.json, .* of its 5 scores .*data\.class"):
        evaluate_converted(checkpoint, folder)
    names = tmp_path / "names.txt"
    names.write_text("rises\nfalls\n")
    with pytest.raises(ConfigError, match=r"names.txt has 2 names, but the model scores 5"):
        evaluate_converted(checkpoint, folder, f"data.classes={names}")
    names.write_text("a\nrises\nb\nfalls\nc\n")
    result = evaluate_converted(checkpoint, folder, f"data.classes={names}")
    assert result["gallery"] == 5
    (checkpoint / NAMES).write_text('["rises", "falls"]')
    with pytest.raises(ConfigError, match=r"classes.json has 2 names, but the model scores 5"):
        evaluate_converted(checkpoint, folder)


@pytest.mark.parametrize("text", ["5", '["a", 5]', "[]", '["a", "a"]', "[", '{"a": 1}'])
def test_a_damaged_list_of_classes_is_one_line(tmp_path, text):
    (tmp_path / NAMES).write_text(text)
    with pytest.raises(ValueError, match=r"classes.json cannot be read .* from a backup") as caught:
        read_classes(tmp_path)
    assert "\n" not in str(caught.value)
