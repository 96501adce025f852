import json

import pytest
import torch

from fusion.checkpoint import CheckpointError
from fusion.config import ConfigError
from fusion.training.run_folder import RunFolder

CONFIG = {
    "task": "retrieval",
    "data_root": None,
    "init": None,
    "seed": 1,
    "output": "x",
    "resume": False,
    "overwrite": False,
    "max_clips": None,
    "max_unknown": 0.5,
    "trust": False,
    "trainer": {"e": 1},
}
WHOLE = CONFIG | {name: {} for name in ("data", "text_encoder", "model", "loss", "evaluation")}


def add_checkpoint(folder):
    """Write the least that a run of an older version can be continued from."""
    folder.mkdir()
    (folder / "model.safetensors").touch()
    torch.save({}, folder / "trainer.pt")


def claim(folder, begin=True, **changes):
    run = RunFolder(folder, WHOLE | changes)
    try:
        goes_on = run.claim()
        if begin:
            run.begin()
        return goes_on
    finally:
        run.release()


def test_a_new_folder_is_claimed(tmp_path):
    assert claim(tmp_path / "run") is False
    assert (tmp_path / "run" / "config.yaml").exists()


def test_another_run_is_not_overwritten(tmp_path):
    claim(tmp_path)
    (tmp_path / "last").mkdir()
    with pytest.raises(ConfigError, match="holds a run already; go on with it by resume=true"):
        claim(tmp_path)


@pytest.mark.parametrize("changes", [{}, {"resume": True}])
def test_a_run_that_ended_before_its_first_checkpoint_is_not_in_the_way(tmp_path, changes):
    """As one with a mistake does that only the first step finds."""
    claim(tmp_path)
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 1}))
    assert claim(tmp_path, trainer={"e": 2}, **changes) is False
    assert not (tmp_path / "metrics.jsonl").exists()


@pytest.mark.parametrize("part", ["last", "last.1", "best", "results.json"])
def test_f07_whatever_is_left_of_a_run_is_a_run(tmp_path, part):
    claim(tmp_path)
    add_checkpoint(tmp_path / part) if part != "results.json" else (tmp_path / part).touch()
    with pytest.raises(ConfigError, match="holds a run already"):
        claim(tmp_path)
    if "last" in part:
        assert claim(tmp_path, resume=True)
        assert (tmp_path / "last").exists()
    else:
        with pytest.raises(CheckpointError, match="no checkpoint to continue from, as last is go"):
            claim(tmp_path, resume=True)
        assert (tmp_path / part).exists()
    assert claim(tmp_path, overwrite=True) is False
    assert not (tmp_path / part).exists()


@pytest.mark.parametrize("changes", [{}, {"resume": True}, {"overwrite": True}])
def test_a_checkpoint_is_no_place_for_a_run(tmp_path, changes):
    claim(tmp_path)
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(ConfigError, match="is a checkpoint; choose another output=DIR"):
        claim(tmp_path, **changes)


def test_a_folder_with_other_things_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError, match="is not empty and holds no run"):
        claim(tmp_path, overwrite=True)


def test_resuming_needs_the_same_config(tmp_path):
    claim(tmp_path)
    add_checkpoint(tmp_path / "last")
    assert claim(tmp_path, resume=True, output="elsewhere") is True
    with pytest.raises(ConfigError, match="cannot go on with seed: 1 -> 3 .*, trainer.e: 1 -> 2"):
        claim(tmp_path, resume=True, trainer={"e": 2}, seed=3)


def test_what_may_change_is_said_and_kept(tmp_path, capsys):
    claim(tmp_path)
    add_checkpoint(tmp_path / "last")
    assert claim(tmp_path, resume=True, trainer={"e": 1, "epochs": 20})
    assert "going on with trainer.epochs: None -> 20 (the learning" in capsys.readouterr().err
    assert claim(tmp_path, resume=True, trainer={"e": 1, "epochs": 20})
    assert "going on" not in capsys.readouterr().err


def test_overwriting_deletes_the_run_and_nothing_else(tmp_path):
    claim(tmp_path)
    (tmp_path / "last").mkdir()
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 1}))
    (tmp_path / "notes.txt").write_text("mine")
    assert claim(tmp_path, overwrite=True) is False
    assert not (tmp_path / "last").exists()
    assert not (tmp_path / "metrics.jsonl").exists()
    assert (tmp_path / "notes.txt").exists()


def test_nothing_is_deleted_before_the_run_begins(tmp_path):
    claim(tmp_path)
    (tmp_path / "last").mkdir()
    assert claim(tmp_path, begin=False, overwrite=True) is False
    assert (tmp_path / "last").exists()


def test_a_run_that_never_began_leaves_a_folder_that_can_be_used(tmp_path):
    claim(tmp_path / "run", begin=False)
    assert claim(tmp_path / "run") is False


def test_f05_a_second_writer_is_refused(tmp_path):
    run = RunFolder(tmp_path, WHOLE)
    run.claim()
    with pytest.raises(ConfigError, match="another process is writing to"):
        claim(tmp_path, resume=True)
    run.release()
    claim(tmp_path, resume=True)


@pytest.mark.parametrize("made", [False, True])
def test_a_run_that_failed_before_it_began_leaves_nothing_behind(tmp_path, made):
    if made:
        (tmp_path / "run").mkdir()
    claim(tmp_path / "run", begin=False)
    assert (tmp_path / "run").exists() == made  # a folder of the user stays
    assert not list(tmp_path.glob("run/*"))
    claim(tmp_path / "run")
    assert (tmp_path / "run" / ".lock").exists()


def test_an_output_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    for output in ("file", "file/run"):
        with pytest.raises(ConfigError, match=f"output={tmp_path}/{output} is a file, or lies in"):
            claim(tmp_path / output)
    assert (tmp_path / "file").read_text() == "mine"


def test_f05_without_locks_a_run_starts_and_says_so(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("fusion.training.run_folder.lock", lambda descriptor: False)
    assert claim(tmp_path / "run") is False
    assert "on a file system without locks" in caplog.text


def test_a_lock_that_is_a_link_empties_no_file(tmp_path):
    (tmp_path / "mine").write_text("precious")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to(tmp_path / "mine")
    with pytest.raises(OSError, match="is a link"):
        claim(tmp_path / "run")
    assert (tmp_path / "mine").read_text() == "precious"


@pytest.mark.parametrize("part", ["last", "best", "tensorboard"])
def test_a_linked_part_is_overwritten_and_what_it_led_to_stays(tmp_path, part):
    claim(tmp_path / "run")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "x").write_text("precious")
    (tmp_path / "run" / part).symlink_to(tmp_path / "mine")
    claim(tmp_path / "run", overwrite=True)
    assert not (tmp_path / "run" / part).is_symlink()
    assert (tmp_path / "mine" / "x").read_text() == "precious"
