"""Runs that training really made, as compare.py reads them."""

import io
import json
import re
import shutil

import numpy as np
import pytest
from accelerate import Accelerator

from fusion.checkpoint import load_model
from fusion.commands.compare import compare
from fusion.commands.evaluate import evaluate
from fusion.commands.train import train
from fusion.config import ConfigError, load_config
from fusion.report.runs import read_run
from fusion.tasks import make_task
from fusion.training.trainer import Trainer
from tests.commands.test_train import config, write_pickle


@pytest.fixture(scope="module", autouse=True)
def no_pages():
    """Leave out the pages of runs, which nothing here reads."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fusion.commands.train.write_report", lambda path, **content: None)
        yield


@pytest.fixture(scope="module")
def trained(no_pages, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    train(config(folder, test=write_pickle(folder / "test.pkl", 4)))
    return folder / "run"


@pytest.fixture
def run(trained, tmp_path):
    """A copy of it, to be changed."""
    return shutil.copytree(trained, tmp_path / "run")


def read(run, name):
    return json.loads((run / name).read_text())


def test_a_run_is_read_with_its_cost_and_its_ranks(run):
    read_again = read_run(str(run))
    assert list(read_again.ids) == [f"test{i}" for i in range(4)]
    assert read_again.clips.tolist() == [0, 1, 2, 3]
    assert len(read_again.test) == 64
    assert read_again.result["protocol_parts"]["data"] == "test.pkl, resnet features"
    assert read_again.result["protocol_parts"]["rule"].startswith("all: every clip")
    for way, row in read_again.result["directions"].items():
        assert sum(read_again.scores[way].values()) == pytest.approx(row["R@1"] * 4 / 100)
    cost = read_again.cost
    assert (cost["training_clips"], cost["processes"], cost["threads"]) == (16, 1, 1)
    assert cost["training_seconds"] > 0 and cost["peak_memory_bytes"] > 2**20
    assert cost["gflop_per_clip"] > 0 and cost["parameters"] > 0


def test_a_run_its_checkpoints_and_files_of_evaluate_are_compared(
    run, no_pictures, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    evaluate("run/last", None, "zero_shot.json", quiet=True)
    words = ["run", "run/best", "zero shot=zero_shot.json"]
    result = compare(words, "out")
    output, errors = capsys.readouterr()
    assert "run/best is a checkpoint: evaluated on the test of its data" in errors
    methods = result["methods"]
    assert list(methods) == ["run", "run/best", "zero shot"]
    assert [m["runs"] for m in methods.values()] == [["run"], ["run/best"], ["zero_shot.json"]]
    for name in ("run", "run/best"):
        assert (
            methods[name]["directions"]["t->v"]["R@1"]
            == methods["run"]["directions"]["t->v"]["R@1"]
        )
    assert methods["run/best"]["directions"]["t->v"]["difference"]["interval"] == [0, 0]
    cost = {key: methods["zero shot"]["cost"][key] for key in ("gflop_per_clip", "device")}
    assert cost == {"gflop_per_clip": None, "device": ""}
    assert methods["zero shot"]["cost"]["parameters"] == methods["run"]["cost"]["parameters"]
    assert re.search(r"zero shot +1 +[\d,]+( +-){7}$", output, re.MULTILINE)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "out",
        "run",
        "zero_shot.json",
        "zero_shot.npz",
    ]
    with pytest.raises(ConfigError, match="same config and the same seed"):
        compare(["run/last", "zero_shot.json"], "again")


def test_an_evaluation_without_its_scores_is_told_what_to_copy(run, tmp_path):
    file = tmp_path / "zero_shot.json"
    evaluate(run, None, file, quiet=True)
    file.with_suffix(".npz").unlink()
    said = (
        r"has no zero_shot.npz; copy both files .*: fusion evaluate CHECKPOINT --json \S+shot.json"
    )
    with pytest.raises(ConfigError, match=said):
        compare([str(run), str(file)])
    with pytest.raises(ConfigError, match=r"name the result FILE.json"):
        evaluate(run, None, file.with_suffix(".npz"))


def test_a_finished_run_of_an_older_version_is_evaluated_again_and_keeps_its_cost(
    run, no_pictures, tmp_path
):
    other = shutil.copytree(run, tmp_path / "other")
    new = (run / "config.yaml").read_text().replace("seed: 0", "seed: 1")
    (other / "config.yaml").write_text(new)
    result, log = read(run, "results.json"), (run / "metrics.jsonl").read_bytes()
    arrays = dict(np.load(run / "ranks.npz"))
    del arrays["test"]
    np.savez(run / "ranks.npz", **arrays)
    older = {key: value for key, value in result.items() if key != "protocol_parts"}
    (run / "results.json").write_text(json.dumps(older))
    cost = read(run, "cost.json")
    del cost["threads"], cost["processes"]
    (run / "cost.json").write_text(json.dumps(cost))
    take_the_way_out([run, other], tmp_path / "out")
    assert read(run, "cost.json") == cost
    assert read(run, "results.json") == result
    assert (run / "metrics.jsonl").read_bytes() == log
    comparison = compare([str(run), str(other)], tmp_path / "out")
    (method,) = comparison["methods"].values()
    assert method["seeds"] == [0, 1]


def take_the_way_out(runs, out):
    """Run the command that the error of a comparison tells."""
    with pytest.raises(ConfigError) as caught:
        compare([str(run) for run in runs], out)
    file, words = re.findall(r"fusion train (\S+) (.*?) ends it", str(caught.value))[0]
    train(load_config(file, words.split()))


def test_of_a_run_that_was_interrupted_the_training_time_is_unknown(
    run, trained, tmp_path, monkeypatch
):
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_end_epoch", stop_in_the_second_epoch)
        with pytest.raises(InterruptedError):
            train(load_config(run / "config.yaml", [f"output={run}", "overwrite=true"]))
    take_the_way_out([run, trained], tmp_path / "out")
    assert read_run(str(run)).cost["training_seconds"] is None


def test_a_run_that_is_trained_anew_has_its_own_cost(run):
    cost = read(run, "cost.json") | {"training_seconds": None}
    (run / "cost.json").write_text(json.dumps(cost))
    train(load_config(run / "config.yaml", [f"output={run}", "overwrite=true"]))
    assert read(run, "cost.json")["training_seconds"] > 0


_end_epoch = Trainer._end_epoch


def stop_in_the_second_epoch(trainer):
    if trainer.epoch:
        raise InterruptedError
    _end_epoch(trainer)


def test_the_digest_is_that_of_names_and_texts(run, trained, tmp_path):
    """Another file and other features of the same clips are one test; other sentences are not."""
    same = tmp_path / "copy.pkl"
    shutil.copy(trained.parent / "test.pkl", same)
    digests = []
    for words in (b"one two three", b"one two tree!"):
        same.write_bytes(same.read_bytes().replace(b"one two three", words))
        digests.append(digest_of_test(load_config(run / "config.yaml", [f"data.test={same}"]), run))
    assert digests[0] == read_run(str(run)).test != digests[1]


def digest_of_test(config, run):
    """Evaluate the model of a run as training does in the end."""
    task = make_task(config)
    task.open_data()
    task.open_encoders(run / "best")
    scores = task.evaluate(
        load_model(run), task.clips("test"), "test", Accelerator(cpu=True)
    ).scores
    return str(np.load(io.BytesIO(scores))["test"])
