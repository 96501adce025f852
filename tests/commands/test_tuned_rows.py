"""Tuned late averages as a user meets them: in the table, the report, JSON and a comparison."""

import csv
import json
import os
from pathlib import Path

import pytest

from fusion.commands.compare import compare
from fusion.commands.evaluate import evaluate
from fusion.commands.train import train
from fusion.config import ConfigError, load_config
from tests.tiny import write_config

ROW = "t->v+a (tuned)"


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tool):
    """A run whose config asks for tuned rows: (its folder, what it printed)."""
    folder = tmp_path_factory.mktemp("finished")
    config = write_config(folder, trainer={"epochs": 1}, evaluation={"tune_late_average": True})
    code, output, errors = tool("tools/train.py", config)
    assert code == 0, errors
    return folder / "run", output


def test_a_run_shows_the_row_and_says_what_was_chosen(finished):
    run, output = finished
    result = json.loads((run / "results.json").read_text())
    rows = list(result["directions"])
    assert len(rows) == 24 and rows[rows.index("t->v+a") + 1] == ROW
    section = result["late_fusion"]["directions"]
    assert list(section["t->v+a"]["R@1"]) == ["equal", "weighted", "summed", "calibrated"]
    assert result["ceiling"][ROW] == result["ceiling"]["t->v+a"]
    assert f"t->v+a  {section['t->v+a']['said']}" in output
    assert f"{ROW} " in output
    report = (run / "report.html").read_text()
    assert "t → v+a (tuned)" in report and "R@1 on validation" in report
    assert result["table"]["lead"][0] == "t->va"


def test_evaluate_gives_the_same_on_two_processes_and_the_same_plain_rows(finished, tool, tmp_path):
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    for file, processes in ((one, 1), (two, 2)):
        words = ["tools/evaluate.py", finished[0], "--json", file]
        code, _, errors = tool(*words, processes=processes)
        assert code == 0, errors
    assert one.read_text() == two.read_text() != ""
    result = json.loads(one.read_text())
    assert result == json.loads((finished[0] / "results.json").read_text())
    plain = evaluate(finished[0], None, None, ["evaluation.tune_late_average=false"])
    assert "late_fusion" not in plain and len(plain["directions"]) == 18
    assert {w: result["directions"][w] for w in plain["directions"]} == plain["directions"]


def test_a_comparison_has_the_row_and_runs_with_and_without_it_are_one_method(finished, tmp_path):
    file, other = tmp_path / "with.json", tmp_path / "without.json"
    evaluate(finished[0], None, file, quiet=True)
    evaluate(finished[0], None, other, ["evaluation.tune_late_average=false", "seed=1"], quiet=True)
    method = compare([str(file), str(other)], tmp_path / "out")["methods"]
    assert [one["seeds"] for one in method.values()] == [[0, 1]]
    assert ROW not in next(iter(method.values()))["directions"]  # one seed lacks it
    again = tmp_path / "again.json"
    evaluate(finished[0], None, again, ["seed=1"], quiet=True)
    (method,) = compare([str(file), str(again)], tmp_path / "out2")["methods"].values()
    assert [p["against"] for p in method["rivals"] if p["direction"] == "t->va"] == ["t->v+a", ROW]


def test_without_another_split_to_tune_on_there_is_a_message(finished, tmp_path, caplog):
    result = evaluate(finished[0], "validation", None, quiet=True)
    assert ROW not in result["directions"]
    assert "tuned on this split" in caplog.text
    demo = sorted(p for p in Path(os.environ["FUSION_CACHE"]).glob("demo-v*-2") if p.is_dir())[0]
    with open(demo / "test.csv", newline="") as file:
        assert len(list(csv.reader(file))) > 2

    def config(splits, name):
        (tmp_path / name).mkdir()
        path = write_config(tmp_path / name, evaluation={"tune_late_average": True})
        files = "\n".join(f"  {split}: {demo / f'{file}.csv'}" for split, file in splits.items())
        text = path.read_text().replace("name: demo", f"name: videos\n{files}")
        path.write_text(text.replace("films: 2", ""))
        return path

    alone = config({"test": "test"}, "alone")
    assert ROW not in evaluate(finished[0], str(alone), None, quiet=True)["directions"]
    assert "which the data lacks: name data.validation" in caplog.text
    with pytest.raises(ConfigError, match="lacks: name data.validation; or evaluation.tune_late_"):
        train(load_config(config({"train": "train", "test": "test"}, "train")))
    same = {"train": "train", "validation": "test", "test": "test"}
    with pytest.raises(ConfigError, match="data.validation and data.test are one file, .*test.csv"):
        train(load_config(config(same, "same")))
