"""Which words, in which order and about what a checkpoint is asked."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fusion.commands import evaluate as evaluate_module
from fusion.commands.evaluate import evaluate
from fusion.commands.job import Job
from fusion.commands.train import train
from fusion.config import load_config
from fusion.data.captions.table import Caption
from fusion.data.datasets.protocols import PROTOCOLS
from fusion.evaluation.embed import Embedded, keep_complete
from fusion.evaluation.settings import Settings
from fusion.report.tables import format_table
from fusion.tasks.retrieval import ranking
from fusion.tasks.retrieval import task as retrieval
from fusion.tasks.retrieval.ranking import embed_clips
from fusion.tasks.retrieval.result import describe_evaluation
from fusion.tasks.retrieval.task import describe_result
from tests.tiny import CONFIG, write_config

WORDS = ["the", "a", "red", "blue", "star", "ring", "while", "and", "is"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run with word vectors of a file: (folder, config, file)."""
    folder = tmp_path_factory.mktemp("trained")
    rows = np.random.default_rng(0).normal(size=(len(WORDS), 8))
    lines = [" ".join([word, *map(str, row)]) for word, row in zip(WORDS, rows, strict=True)]
    vectors = folder / "words.txt"
    vectors.write_text("\n".join([f"{len(WORDS)} 8", *lines]))
    spec = {"name": "word2vec_file", "path": str(vectors), "dim": None, "epochs": None}
    config = write_config(folder, trainer={"epochs": 1}, text_encoder=spec)
    text = config.read_text().replace("  dim: null\n  epochs: null\n", "")
    config.write_text(text)
    train(load_config(config))
    return folder / "run", config, vectors


def test_a_run_keeps_its_own_word_vectors_on_other_data(trained, tmp_path, capsys):
    run, config, vectors = trained
    other = tmp_path / "other.yaml"
    other.write_text(config.read_text().replace(str(vectors), str(tmp_path / "nowhere.bin")))
    own = json.loads((run / "results.json").read_text())
    assert evaluate(run, str(other), None) == own
    assert f"texts     {vectors}" in capsys.readouterr().err
    nowhere = f"text_encoder.path={tmp_path / 'nowhere.bin'}"
    with pytest.raises(ValueError, match="text_encoder.path: there is no .*nowhere.bin"):
        evaluate(run, str(other), None, [nowhere])


def test_a_config_of_a_test_needs_only_its_data(trained, tmp_path):
    run = trained[0]
    other = tmp_path / "data.yaml"
    other.write_text("data: {name: demo, films: 2}\n")
    own = json.loads((run / "results.json").read_text())
    assert evaluate(run, str(other), None, quiet=True) == own
    few = evaluate(run, str(other), None, ["max_clips=4"], quiet=True)
    assert few["gallery"] == 4
    other.write_text("data: {name: demo, films: 2}\nevaluation: {rescoring: [dual_softmax]}\n")
    assert "dual_softmax" in evaluate(run, str(other), None, quiet=True)["rescored"]
    other.write_text("evaluation: {batch_sze: 2}\n")
    with pytest.raises(ValueError, match="did you mean 'batch_size'"):
        evaluate(run, str(other), None)


def test_a_recipe_is_a_test_by_its_name(trained, tmp_path):
    with pytest.raises(ValueError, match=r"msrvtt_jsfusion_test.pkl is missing"):
        evaluate(trained[0], "msrvtt/zero_shot", None, [f"data_root={tmp_path}"])


def test_vectors_that_a_run_has_lost_are_those_of_the_config(trained, tmp_path, capsys):
    run, config, vectors = trained
    moved = vectors.rename(vectors.with_name("moved.txt"))
    other = tmp_path / "other.yaml"
    other.write_text(config.read_text().replace(str(vectors), str(moved)))
    try:
        evaluate(run, str(other), None)
        assert f"texts     {moved}" in capsys.readouterr().err
        lost = r"cannot be opened: text_encoder.path: there is no \S*words.txt; add text_enc"
        with pytest.raises(ValueError, match=lost):
            evaluate(run, "validation", None, ["text_encoder.path=null"])
    finally:
        moved.rename(vectors)


def test_mistakes_about_data_are_found_before_a_model_is_built(trained, tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    data = f"data: {{name: videos, train: {tmp_path}/none.csv, test: {tmp_path}/none.csv}}\n"
    path = tmp_path / "c.yaml"
    text = write_config(tmp_path).read_text().replace("data:\n  films: 2\n  name: demo\n", data)
    path.write_text(text)
    devices, build = [], Job._build

    def recorded(job):
        devices.append(torch.get_default_device().type)
        build(job)

    monkeypatch.setattr(Job, "_build", recorded)
    with pytest.raises(ValueError, match=r"none.csv: no such file"):
        train(load_config(path))
    assert devices == ["meta"]
    monkeypatch.setattr(evaluate_module, "load_model", lambda *_: pytest.fail("too early"))
    with pytest.raises(ValueError, match=r"none.csv: no such file"):
        evaluate(trained[0], str(path), None)


def test_a_misspelt_split_is_found_before_the_data_are_opened(trained, monkeypatch):
    monkeypatch.setattr(evaluate_module, "make_task", lambda *_: pytest.fail("too late"))
    with pytest.raises(ValueError, match="--set: unknown 'tests'; choose from train, validation, "):
        evaluate(trained[0], "tests", None)


def test_a_store_without_the_test_is_no_surprise_after_training(tmp_path):
    from tests.data.captions.test_annotations import make_store, write

    train_file = write(tmp_path / "train.csv", "video,text\na,a cat\n")
    store = make_store(tmp_path / "store", ["a"])
    config = load_config(write_config(tmp_path))
    config["data"] = {"name": "videos", "train": train_file, "store": store}
    config["data"]["test"] = str(tmp_path / "none.csv")
    with pytest.raises(ValueError, match=r"none.csv: no such file"):
        train(config | {"trainer": CONFIG["trainer"] | {"best": None}})


def test_texts_of_unknown_words_are_told_from_empty_ones():
    present = {"text": torch.tensor([True, False, False]), "video": torch.ones(3).bool()}
    embedded = Embedded(("a", "b", "c"), {"t": torch.ones(3, 1), "v": torch.ones(3, 1)}, present)

    class Captions:
        captions = tuple(Caption("a", 0.0, 1.0, text) for text in ("a cat", "xyzzy", " - "))
        whole, shows = None, range(3)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranking, "embed", lambda *_, **__: embedded)
        found = embed_clips(None, Captions(), None, 1)
    result = describe_evaluation("test", "all", found, {}, None, 3)
    assert result["clips"]["missing"]["text"] == 2
    assert result["clips"]["without_known_words"] == 1
    assert "2 without text, 0 without video (1 of 3 texts have no known word)" in format_table(
        result
    )
    complete = describe_evaluation("test", "all", keep_complete(found, ["text"]), {}, None, 3)
    assert "without_known_words" not in complete["clips"]


def test_all_processes_rank_and_only_the_main_one_has_a_result(monkeypatch):
    config = CONFIG | {"task": "retrieval", "output": "x"}
    monkeypatch.setattr(retrieval, "embed_clips", lambda *_: None)
    ranked = []
    monkeypatch.setattr(retrieval, "rank_gallery", lambda *about: ranked.append(about[1]))
    monkeypatch.setattr(retrieval, "describe_result", lambda *_: pytest.fail("described"))
    other = SimpleNamespace(is_main_process=False)
    task = retrieval.Retrieval(config)
    task.source = None
    assert task.evaluate(None, None, "test", other) is None and ranked == ["test"]


def test_the_table_says_that_its_gallery_is_not_the_published_one():
    present = {"text": torch.ones(3).bool(), "audio": torch.tensor([True, True, False])}
    rows = torch.eye(3)
    embedded = Embedded(("a", "b", "c"), {"t": rows, "a": rows}, present)

    class Source:
        def protocol_of(self, split):
            return PROTOCOLS["msrvtt-968-of-1000"]

        def describe(self, split):
            return "features of resnext101"

        def ceiling(self, split):
            return None

    result = describe_result(Source(), "test", embedded, Settings(), None)[0]
    assert "(here 2, not 968: not the published gallery); features of res" in result["protocol"]
    assert result["protocol"] in format_table(result)
