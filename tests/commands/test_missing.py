"""What a user gets of ``fusion evaluate RUN --missing``: a table, JSON, and plots in the report."""

import json
import re
import shutil

import numpy as np
import pytest

from fusion.cli.main import main
from fusion.commands.evaluate import evaluate
from fusion.commands.train import train
from fusion.config import ConfigError, load_config
from fusion.evaluation.missing import SHARES
from tests.tiny import write_config


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("missing")
    evaluation = {"queries_in_report": 0, "missing": ["text"]}
    train(load_config(write_config(folder, trainer={"epochs": 1}, evaluation=evaluation)))
    return folder / "run"


@pytest.fixture
def run(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "run")


def test_the_curves_are_printed_and_added_to_the_run(run, tmp_path, capsys):
    before = json.loads((run / "results.json").read_text())
    assert list(before.pop("missing")["modalities"]) == ["text"]  # as the config says
    assert "v → ta R@1 by the share" in (run / "report.html").read_text()
    main(["evaluate", str(run), "--missing", "audio, video", "--json", str(tmp_path / "a.json")])
    printed = capsys.readouterr()
    title = r"t → va R@1 by the share of the \d+ clips with audio that lose it"
    assert re.search(title, printed.out)
    assert re.search(r"way +0 % +30 % +60 % +90 % +100 %\nfused, masking token", printed.out)
    assert "fused - late average, left out" in printed.out
    assert f"curves    {run / 'report.html'}" in printed.err
    after = json.loads((run / "results.json").read_text())
    curves = after.pop("missing")["modalities"]
    assert after == before  # they only add
    assert {name: part["direction"] for name, part in curves.items()} == {
        **{"text": "v->ta", "audio": "t->va", "video": "t->va"},
    }
    assert curves["audio"]["shares"] == list(SHARES)
    written = json.loads((tmp_path / "a.json").read_text())["missing"]["modalities"]
    assert written == {name: curves[name] for name in ("audio", "video")}
    for file in (run / "ranks.npz", tmp_path / "a.npz"):
        with np.load(file) as arrays:
            assert "missing audio: fused, left out" in arrays
            assert ("missing text: names" in arrays) == (file.name == "ranks.npz")
    page = (run / "report.html").read_text()
    assert "Missing modalities</h2>" in page and "Learning curves</h2>" in page
    assert re.search(title, page)


def test_another_test_leaves_the_run_as_it_is(run, tmp_path, capsys):
    before = {path.name: path.read_bytes() for path in run.glob("*.*") if path.is_file()}
    found = evaluate(run, "validation", None, missing=["audio"])
    assert found["missing"]["modalities"]["audio"]["direction"] == "t->va"
    evaluate(run / "best", None, None, missing=["video"], direction="va->t")
    assert "va → t R@1" in capsys.readouterr().out
    assert {p.name: p.read_bytes() for p in run.glob("*.*") if p.is_file()} == before


def test_a_finished_run_may_get_other_curves(run):
    """They change no other result, so they are no other run."""
    words = ["resume=true", "evaluation.missing=[video]", "evaluation.missing_direction=va->t"]
    config = load_config(run / "config.yaml", [*words, f"output={run}"])
    train(config)
    found = json.loads((run / "results.json").read_text())["missing"]["modalities"]
    assert {name: part["direction"] for name, part in found.items()} == {"video": "va->t"}


@pytest.mark.parametrize(
    ("missing", "direction", "message"),
    [
        (["audoi"], None, r"--missing\): 'audoi' is no modality .* did you mean 'audio'"),
        (["sound"], None, "'sound' is no modality of the model; choose from"),
        (["audio", "audio"], None, "names audio twice"),
        (["audio"], "t->v", "--missing audio: audio is on no side of t->v"),
        (["audio"], "t->a", "audio is alone on a side of t->a"),
        (["audio"], "t->va->a", "must be two combinations"),
        (["audio"], "t->x", "unknown modality 'x'"),
        (["audio"], "ta->va", "audio on both sides"),
    ],
)
def test_mistakes_are_found_before_anything_is_read(trained, missing, direction, message):
    with pytest.raises(ConfigError, match=message):
        evaluate(trained, None, None, missing=missing, direction=direction)


def test_no_name_is_a_mistake(trained, capsys):
    with pytest.raises(SystemExit):
        main(["evaluate", str(trained), "--missing", ","])
    assert "--missing names no modality" in capsys.readouterr().err


def test_a_direction_alone_is_a_mistake(tmp_path):
    evaluation = {"missing_direction": "t->va"}
    with pytest.raises(ConfigError, match="missing_direction says nothing without evaluation.miss"):
        train(load_config(write_config(tmp_path, evaluation=evaluation)))


def test_a_model_of_two_modalities_has_nothing_to_compare(tmp_path):
    model = {"combinations": ["t", "v"], "modalities": {"text": {"dim": 8}, "video": {"dim": 125}}}
    path = write_config(tmp_path, model=model, loss={"terms": {"t|v": 1}})
    config = load_config(path, ["evaluation.missing=[video]"])
    with pytest.raises(ConfigError, match="this needs a model of three modalities or more"):
        train(config)
