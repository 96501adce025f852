"""Rescored rows as a user meets them: apart from the plain ones in table, JSON and report."""

import json
import os
from pathlib import Path

import pytest

from fusion.commands.evaluate import evaluate
from tests.tiny import write_config

MARK = "rescored: not comparable with the rows above"


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tool):
    """A run whose config asks for QB-Norm: (its folder, what it printed)."""
    folder = tmp_path_factory.mktemp("finished")
    evaluation = {"rescoring": ["qb_norm"], "qb_norm_bank": 4}
    config = write_config(folder, trainer={"epochs": 1}, evaluation=evaluation)
    code, output, errors = tool("tools/train.py", config)
    assert code == 0, errors
    return folder / "run", output


def test_a_run_keeps_rescored_rows_apart(finished):
    run, output = finished
    result = json.loads((run / "results.json").read_text())
    assert "sees 4 queries of the training split" in result["rescored"]["qb_norm"]["assumes"]
    assert "qb_norm" not in json.dumps(result["directions"])
    assert "qb_norm" not in output.split(MARK)[0]
    assert "t->va qb_norm" in output.split(MARK)[1]
    assert "qb_norm" not in (run / "report.html").read_text()


def test_rescored_rows_stand_apart_and_are_the_same_on_two_processes(finished, tool, tmp_path):
    ask = "evaluation.rescoring=[dual_softmax,qb_norm]"
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    for file, processes in ((one, 1), (two, 2)):
        words = ["tools/evaluate.py", finished[0], ask, "--json", file]
        code, output, errors = tool(*words, processes=processes)
        assert code == 0, errors
        assert "softmax" not in output.split(MARK)[0]
        assert "t->va dual_softmax" in output.split(MARK)[1]
    assert one.read_text() == two.read_text()
    result, plain = (json.loads(f.read_text()) for f in (one, finished[0] / "results.json"))
    assert result["rescored"]["qb_norm"] == plain.pop("rescored")["qb_norm"]
    assert len(result.pop("rescored")["dual_softmax"]["directions"]) == 18
    assert result == plain == evaluate(finished[0], None, None, ["evaluation.rescoring=[]"])


def test_rescoring_that_is_unknown_or_impossible_is_one_line(finished, tmp_path):
    with pytest.raises(ValueError, match="unknown 'qbnorm'; choose from dual_softmax, qb_norm"):
        evaluate(finished[0], None, None, ["evaluation.rescoring=[qbnorm]"])
    with pytest.raises(ValueError, match="evaluation.rescoring must be a list"):
        evaluate(finished[0], None, None, ["evaluation.rescoring=qb_norm"])
    demo = sorted(p for p in Path(os.environ["FUSION_CACHE"]).glob("demo-v*-2") if p.is_dir())[0]
    other = write_config(tmp_path, evaluation={"rescoring": ["qb_norm"]})
    videos = f"name: videos\n  test: {demo / 'test.csv'}"
    other.write_text(other.read_text().replace("name: demo", videos).replace("films: 2", ""))
    with pytest.raises(ValueError, match="which the data lacks; name one under data.train, or"):
        evaluate(finished[0], str(other), None)
