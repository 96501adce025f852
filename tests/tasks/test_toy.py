"""A task that is not retrieval goes through the same tools, trainer, checkpoints and report."""

import json
import signal

import numpy as np
import pytest
import yaml

from fusion.checkpoint import load_checkpoint
from fusion.commands.errors import run
from fusion.commands.evaluate import evaluate
from fusion.commands.train import train
from fusion.config import ConfigError, load_config
from fusion.tasks import make_task
from fusion.training.launch import Stopped
from fusion.training.trainer import Trainer
from tests.tasks import toy
from tests.tiny import CONFIG

TOY = "tests/tasks/toy.py"
LABELS = [f"folder {i}" for i in range(8)]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Clips of eight folders, each around a centre of its own."""
    folder, random = tmp_path_factory.mktemp("labelled"), np.random.default_rng(0)
    centres = random.normal(size=(len(LABELS), 12))
    for split, count in {"train": 12, "validation": 3, "test": 5}.items():
        for label, centre in zip(LABELS, centres, strict=True):
            (folder / split / label).mkdir(parents=True)
            for number in range(count):
                tokens = centre + random.normal(size=(1 + number % 3, 12))
                np.save(folder / split / label / f"{number}.npy", tokens.astype(np.float32))
    return folder


def write_config(folder, data, **changes):
    config = {
        "task": "toy_classification",
        "output": str(folder / "run"),
        "data": {"name": "labelled_folders", "root": str(data)},
        "model": {"name": "toy_classifier", "dim": 12, "classes": len(LABELS)},
        "loss": {"name": "cross_entropy"},
        "trainer": {"epochs": 6, "batch_size": 16, "learning_rate": 0.05, "best": "label top-1"},
        "evaluation": {},
    }
    for key, value in changes.items():
        config[key] = config.get(key, {}) | value if isinstance(value, dict) else value
    path = folder / "toy.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.fixture(scope="module", autouse=True)
def toy_tables():
    """The toy task in the tables of this process, for runs that need no process of their own."""
    with pytest.MonkeyPatch.context() as patch:
        for name, table in toy.TABLES.items():
            patch.setitem(table, name, toy.ENTRIES[name])
        yield


@pytest.fixture(scope="module")
def finished(data, tool, tmp_path_factory):
    """Two runs that differ in their seed, and what the tool printed of the first one."""
    folder = tmp_path_factory.mktemp("toy")
    config = write_config(folder, data)
    code, said, errors = tool(TOY, "tools/train.py", config, f"output={folder / 'toy-0'}")
    assert code == 0, errors
    train(load_config(config, [f"output={folder / 'toy-1'}", "seed=1"]))
    return folder, said


def test_it_trains_and_reports(finished):
    folder, said = finished
    result = json.loads((folder / "toy-0" / "results.json").read_text())
    row = result["answers"]["label"]
    assert row["top-1"] > 60 > result["chance"]["top-1"] == 12.5
    assert row["top-5"] >= row["top-1"]
    assert "top-1" in said and "label" in said
    page = (folder / "toy-0" / "report.html").read_text()
    assert "Classification" in page and "Top-5" in page and "folder 0/0" in page
    assert "Validation top-1 (%): answers" in page
    assert json.loads((folder / "toy-0" / "cost.json").read_text())["parameters"] == 13 * 8


def test_its_checkpoint_is_evaluated_by_the_same_tool(finished, tool, tmp_path):
    run = finished[0] / "toy-0"
    code, _, errors = tool(TOY, "tools/evaluate.py", run, "--json", tmp_path / "r.json")
    assert code == 0, errors
    evaluated = json.loads((tmp_path / "r.json").read_text())
    assert evaluated == json.loads((run / "results.json").read_text())
    assert "encoder in" not in errors


def test_a_stopped_run_of_it_goes_on_from_its_checkpoint(finished, data, tmp_path, monkeypatch):
    config = load_config(write_config(tmp_path, data), ["trainer.save_every=2"])
    step = Trainer._train_epoch

    def stop_in_the_third_epoch(trainer):
        if trainer.epoch == 2:
            trainer.wishes.stop.signal = signal.SIGTERM
        step(trainer)

    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(Trainer, "_train_epoch", stop_in_the_third_epoch)
        train(config)
    assert not (tmp_path / "run" / "results.json").exists()
    train(config | {"resume": True})
    results = [(run / "results.json") for run in (tmp_path / "run", finished[0] / "toy-0")]
    assert results[0].read_text() == results[1].read_text()


def test_its_runs_are_compared_by_the_same_tool(finished, data, tool, tmp_path):
    folder = finished[0]
    train(load_config(write_config(tmp_path, data, trainer={"learning_rate": 1e-5})))
    runs = [f"fast={folder / 'toy-0'}", f"fast={folder / 'toy-1'}", f"slow={tmp_path / 'run'}"]
    code, output, errors = tool("tools/compare.py", *runs, "--out", tmp_path / "comparison")
    assert code == 0, errors
    assert "fast" in output and "slow" in output and "top-1" in output
    assert list((tmp_path / "comparison").glob("*.html"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "classifcation"}, "task: unknown 'classifcation'"),
        ({"trainer": {"best": "t->v R@1"}}, "trainer.best: unknown 't->v R@1'"),
        ({"model": {"dim": 13}}, "model.modalities.video.dim is 13, but the data are 12 wide"),
        ({"evaluation": {"example": 1}}, "evaluation.example is unknown; did you mean 'examples'"),
    ],
)
def test_mistakes_are_one_line(data, tmp_path, capsys, changes, message):
    config = write_config(tmp_path, data, **changes)
    with pytest.raises(SystemExit) as end:
        run(lambda: train(load_config(config)))
    errors = capsys.readouterr().err
    assert end.value.code == 2
    assert message in errors and len(errors.strip().splitlines()) == 1
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_configs_without_a_task_are_about_retrieval():
    config = CONFIG | {"task": "retrieval", "output": "x"}
    assert type(make_task(config)).__name__ == "Retrieval"


def test_a_checkpoint_without_texts_is_loaded_for_use(finished):
    model, text_encoder, config = load_checkpoint(finished[0] / "toy-0")
    assert text_encoder is None
    assert config["task"] == "toy_classification"
    assert model.layer.in_features == 12


def test_data_of_another_task_are_refused(finished, tmp_path):
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(CONFIG | {"output": "x"}))
    with pytest.raises(ConfigError, match="but the model was trained for toy_class"):
        evaluate(finished[0] / "toy-0", str(tmp_path / "other.yaml"), None)


def test_retrieval_without_texts_needs_no_text_encoder(tmp_path):
    """From what is seen to what is heard."""
    model = CONFIG["model"] | {"combinations": ["v", "a"]}
    model["modalities"] = {n: CONFIG["model"]["modalities"][n] for n in ("video", "audio")}
    changes = {"text_encoder": None, "model": model, "output": str(tmp_path / "run")}
    changes["loss"] = {"name": "combinatorial", "terms": {"v|a": 1}}
    changes["trainer"] = CONFIG["trainer"] | {"epochs": 1}
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(CONFIG | changes))
    train(load_config(path))
    result = json.loads((tmp_path / "run" / "results.json").read_text())
    assert set(result["directions"]) == {"v->a", "a->v"}
