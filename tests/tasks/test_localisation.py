"""Models of retrieval are tested on steps and on whole films, by the same command and files."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator

import fusion
from fusion.checkpoint import load_model
from fusion.commands.compare import compare
from fusion.commands.evaluate import evaluate
from fusion.commands.train import train
from fusion.config import ConfigError, load_config
from fusion.data.demo import demo_corpus
from fusion.evaluation.embed import Embedded
from fusion.evaluation.localisation import assign_in_order, mask_of, steps_found
from fusion.evaluation.localisation.scores import directions_from_text, score_windows
from fusion.report.tables import format_table
from fusion.tasks import make_task
from tests.tiny import write_config

ROOT = Path(__file__).parents[2] / "configs"
FEW = ["data.films=2"]
ROWS = ["t->v", "t->a", "t->va", "t->v+a"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("localised")
    train(load_config(write_config(folder, trainer={"epochs": 1})))
    return folder / "run"


@pytest.fixture(scope="module")
def found(run, tmp_path_factory):
    """The result and the files of an evaluation."""
    file = tmp_path_factory.mktemp("result") / "steps.json"
    result = evaluate(run, str(ROOT / "localisation.yaml"), file, FEW, quiet=True)
    assert result == json.loads(file.read_text())
    return result, file


def test_every_direction_is_measured_beside_chance_and_ceiling(found):
    result, file = found
    assert [*result["directions"]] == [
        f"{way} {how}" for way in ROWS for how in ("ordered", "argmax")
    ]
    for name, row in result["directions"].items():
        assert {"recall", "pooled", "AP", "films", "recall_interval"} <= row.keys()
        assert ("MoF" in row) == name.endswith("ordered")
        assert result["ceiling"][name]["recall"] > result["chance"]["recall"]
    assert result["chance"]["recall"] < result["chance_ordered"]["recall"]
    text = format_table(result)
    assert "chance, ordered" in text and "2 films of" in text
    with np.load(file.with_suffix(".npz")) as arrays:
        scores = arrays["t->va ordered scores"]
        assert 100 * scores.mean() == pytest.approx(result["directions"]["t->va ordered"]["recall"])


def test_a_small_test_counts_films(found):
    assert "only 2 films: one is 50.0 per cent" in format_table(found[0])


@pytest.mark.parametrize(("before", "said"), [(4.0, "windows last 8 s"), (0.05, "")])
def test_windows_longer_than_the_clips_of_the_training_are_named(run, before, said, caplog):
    sizes = [f"data.before={before}", f"data.after={before}"]
    evaluate(run, str(ROOT / "localisation.yaml"), None, [*FEW, *sizes], quiet=True)
    warned = caplog.text
    assert ("but the model was trained on clips of at most" in warned) == bool(said)
    assert said in warned


@pytest.mark.filterwarnings("ignore:.*longer than the model takes:UserWarning")
def test_recall_is_what_windows_that_are_embedded_one_by_one_give(run, found):
    """The plain twin: every window by itself, cosines by hand, the film's recall by the rules."""
    model, config = fusion.load(run), load_config(run / "config.yaml")
    config |= {"task": "localisation", "data": {"name": "demo_steps", "films": 2}, "evaluation": {}}
    task = make_task(config)
    task.open_encoders(run / "best")
    task.open_data()
    clips, recalls = task.clips("test"), []
    for film in clips.films:
        path = clips.folder / film.video
        windows = clips.windows_of(film)
        rows = []
        for window in windows.captions:
            try:
                rows.append(model.encode(path, "va", start=window.start, end=window.end))
            except ValueError:
                rows.append(torch.full((8,), -torch.inf))
        texts = model.encode(list(film.steps), "t")
        scores = (torch.stack(rows) @ texts.T).numpy()
        mask = mask_of(film.intervals, len(windows), len(film.steps))
        recalls.append(steps_found(mask, assign_in_order(scores)).mean())
    row = found[0]["directions"]["t->va ordered"]
    assert row["recall"] == pytest.approx(100 * np.mean(recalls))


def test_evaluations_are_compared(run, found, tmp_path, capsys):
    last = tmp_path / "last.json"
    evaluate(run / "last", str(ROOT / "localisation.yaml"), last, FEW, quiet=True)
    compare([f"best={found[1]}", f"last={last}"], str(tmp_path / "both"))
    assert "t->va ordered" in capsys.readouterr().out


def test_whole_films(run, tmp_path):
    file, config = tmp_path / "films.json", str(ROOT / "whole_films.yaml")
    result = evaluate(run, config, file, FEW, quiet=True)
    assert [*result["directions"]] == [
        f"{way} {kind}"
        for way in ROWS
        for kind in ("caption", "caption by clips", "all captions", "votes")
    ]
    assert result["directions"]["t->v caption"]["queries"] == 10
    assert result["clips"]["total"] == 10
    further = evaluate(run, config, None, [*FEW, "evaluation.background_seconds=2"], quiet=True)
    assert further["clips"]["total"] > 10
    assert "clips of 2 s outside of captions included" in further["protocol"]
    last = tmp_path / "last.json"
    evaluate(run / "last", config, last, FEW, quiet=True)
    compare([f"best={file}", f"last={last}"], str(tmp_path / "both"))


def test_other_protocols_of_the_same_films(run):
    config = str(ROOT / "localisation.yaml")
    words = [*FEW, "evaluation.protocol=mining-youtube", "evaluation.background=a room"]
    result = evaluate(run, config, None, words, quiet=True)
    assert [*result["directions"]] == [f"{way} ordered" for way in ROWS]
    assert result["table"]["main"] == "MoF"
    assert 0 < result["chance"]["MoF"] < 100
    result = evaluate(run, config, None, [*FEW, "data.pictures=second"], quiet=True)
    assert "pictures of the second alone" in result["protocol"]


def test_problems_of_annotations_are_in_the_result(run, tmp_path):
    path = demo_corpus(size=2) / "videos" / "test_0000.mp4"
    (tmp_path / "steps.csv").write_text(
        f"video,step,start,end\n{path},a red star,1,3\n{path},a bell,20,99\ngone,a bell,1,2\n"
        f"{path},zzz,5,6\n"
    )
    config = tmp_path / "own.yaml"
    config.write_text(
        "task: localisation\nevaluation: {}\n"
        f"data: {{name: steps, test: {tmp_path / 'steps.csv'}, max_bad: 1}}\n"
    )
    result = evaluate(run, str(config), None, quiet=True)
    assert result["problems"]["counts"] == {
        "films missing, left out": 1,
        "intervals beyond the end of their film, cut off there": 1,
        "steps without a known word, which score 0 everywhere": 1,
    }
    assert "1 films missing, left out (gone)" in format_table(result)


def test_a_report_draws_some_films(run):
    config = load_config(run / "config.yaml")
    config |= {"task": "localisation", "data": {"name": "demo_steps", "films": 2}, "evaluation": {}}
    task = make_task(config)
    task.open_encoders(run / "best")
    task.open_data()
    model = load_model(run)
    made = task.evaluate(model, task.clips("test"), "test", Accelerator(cpu=True))
    (section,) = made.sections.values()
    assert section.count("<svg") == 2 and "recall" in section


def test_what_cannot_be_tested_or_trained_is_one_line(run, tmp_path):
    with pytest.raises(ConfigError, match="task localisation tests models that were trained for"):
        train(load_config(write_config(tmp_path, task="localisation")) | {"evaluation": {}})
    config = tmp_path / "plain.yaml"
    config.write_text("task: localisation\nevaluation: {}\ndata: {name: demo, films: 2}\n")
    with pytest.raises(ConfigError, match="data.name: 'demo' has no steps; take steps, crosstask"):
        evaluate(run, str(config), None, quiet=True)
    config.write_text("task: question_answering\nevaluation: {}\ndata: {name: scenes}\n")
    with pytest.raises(ConfigError, match="is a test of question_answering, but"):
        evaluate(run, str(config), None, quiet=True)
    config.write_text(
        "task: localisation\nevaluation: {protocl: steps}\ndata: {name: demo_steps}\n"
    )
    with pytest.raises(ConfigError, match="evaluation.protocl is unknown; did you mean 'protocol'"):
        evaluate(run, str(config), None, quiet=True)


@pytest.mark.parametrize(
    ("name", "data"), [("localisation", "demo_steps"), ("whole_films", "demo")]
)
def test_models_of_frames_are_refused_in_one_line(run, tmp_path, name, data):
    config = tmp_path / "test.yaml"
    config.write_text(f"task: {name}\nevaluation: {{}}\ndata: {{name: {data}, films: 2}}\n")
    with pytest.raises(ConfigError, match="data.raw_video is of task retrieval; leave it out"):
        evaluate(run, str(config), None, ["data.raw_video.frames=2"], quiet=True)
    message = rf"task {name} cannot read frames \(data.raw_video\): .* evaluate this one as"
    copy = shutil.copytree(run, tmp_path / "run")
    for file in copy.rglob("config.yaml"):
        file.write_text(file.read_text().replace("data:\n", "data:\n  raw_video: {frames: 2}\n"))
        (file.parent / "manifest.json").unlink(missing_ok=True)
    with pytest.raises(ConfigError, match=message):
        evaluate(copy, str(config), None, quiet=True)


def test_windows_without_a_modality_are_unknown_and_unknown_steps_score_nothing():
    ways = directions_from_text(["text", "video", "audio"], ["t", "v", "a", "va"])
    assert list(map(str, ways)) == ["t->v", "t->a", "t->va", "t->v+a"]
    torch.manual_seed(0)
    embeddings = {c: torch.randn(3, 4) for c in ("v", "a", "va")}
    present = {
        "video": torch.tensor([True, False, False]),
        "audio": torch.tensor([True, True, False]),
    }
    windows = Embedded(("x", "y", "z"), embeddings, present)
    texts, known = torch.randn(2, 4), torch.tensor([True, False])
    scores = score_windows(windows, texts, known, ways)
    assert np.isneginf(scores["t->v"]).all(axis=1).tolist() == [False, True, True]
    assert np.isneginf(scores["t->va"]).all(axis=1).tolist() == [False, False, True]
    assert scores["t->a"][:2, 1].tolist() == [0, 0]
    v, a = embeddings["v"], embeddings["a"]
    for way, side in {"t->va": embeddings["va"], "t->v+a": (v + a) / 2}.items():
        cosines = torch.nn.functional.cosine_similarity(side[:1], texts[:1])
        assert scores[way][0, 0] == pytest.approx(float(cosines), abs=1e-6)
