import json
import os
import shutil

import pytest
import torch

from fusion.checkpoint import CheckpointError
from fusion.config import ConfigError
from fusion.manifest import MANIFEST, check_files
from fusion.training.run_folder import RunFolder
from fusion.training.safety.checkpoints import (
    DAMAGED,
    copies,
    find_damage,
    recover_last,
    write_checkpoint,
)
from tests.training.safety.runs import WAYS, Undisturbed, change_state, copy_of, damage, go_on
from tests.training.test_trainer import items, losses, make, state


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return Undisturbed(tmp_path_factory.mktemp("run"))


@pytest.fixture
def run(undisturbed, tmp_path):
    return copy_of(undisturbed.cut, tmp_path)


def step_of(folder):
    return json.loads((folder / MANIFEST).read_text())["step"]


def names(run):
    return sorted(path.name for path in run.iterdir() if path.is_dir())


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["model.safetensors", "trainer.pt", MANIFEST])
def test_f07_a_damaged_newest_checkpoint_is_passed_over(run, undisturbed, capsys, name, way):
    damage(run / "last" / name, way)
    trainer = go_on(run)
    assert trainer.steps_done == 4
    said = capsys.readouterr().err
    assert said.startswith(f"{run / 'last' / name} is ")
    assert "going on from the checkpoint before; the damaged one is" in said
    assert (run / DAMAGED).exists()
    trainer.fit()
    assert losses(run) == undisturbed.losses
    assert all(t.equal(undisturbed.state[n]) for n, t in state(trainer).items())


def test_f07_without_damage_the_newest_checkpoint_is_taken(run, undisturbed):
    trainer = go_on(run)
    assert trainer.steps_done == 8
    trainer.fit()
    assert losses(run) == undisturbed.losses
    assert all(t.equal(undisturbed.state[n]) for n, t in state(trainer).items())
    assert step_of(run / "last") == 12 and step_of(run / "last.1") == 8


def test_f07_with_all_checkpoints_damaged_nothing_begins_anew(run):
    damage(run / "last" / "trainer.pt", "flip")
    damage(run / "last.1" / "model.safetensors", "gone")
    before = names(run)
    with pytest.raises(CheckpointError, match="no checkpoint of .* can be continued") as error:
        go_on(run)
    assert "trainer.pt is damaged" in str(error.value)
    assert "last.1/model.safetensors is missing" in str(error.value)
    assert f"init={run / 'best'}" in str(error.value)
    assert names(run) == before


def test_f07_with_the_last_checkpoint_gone_nothing_begins_beside_the_best(run):
    for folder in ("last", "last.1"):
        shutil.rmtree(run / folder)
    with pytest.raises(CheckpointError, match="as last is gone, but best: use that"):
        go_on(run)
    assert check_files(run / "best")


def test_a_damaged_best_is_replaced_by_the_next_epoch(run, capsys):
    damage(run / "best" / "model.safetensors", "flip")
    trainer = go_on(run, evaluate=lambda model: {"score": -100.0})
    assert "best/model.safetensors is damaged" in capsys.readouterr().err
    trainer.fit()
    assert check_files(run / "best")["step"] == 12


def test_a_damaged_best_of_a_finished_run_is_named(undisturbed, tmp_path):
    run = copy_of(undisturbed.whole, tmp_path)
    damage(run / "best" / "model.safetensors", "cut")
    with pytest.raises(CheckpointError, match="best/model.safetensors is damaged.*is what is left"):
        go_on(run)


def test_the_best_of_another_run_is_no_best(run, undisturbed, capsys):
    shutil.rmtree(run / "best")
    shutil.copytree(undisturbed.whole / "best", run / "best")
    assert go_on(run).best.score == -float("inf")
    assert "best is of another run" in capsys.readouterr().err


@pytest.mark.parametrize(("keep", "steps"), [(1, [12]), (2, [12, 8]), (3, [12, 8, 4])])
def test_so_many_checkpoints_are_kept_as_asked(tmp_path, keep, steps):
    make(tmp_path, keep_last=keep).fit()
    assert [step_of(folder) for folder in copies(tmp_path)] == steps
    make(tmp_path / "fewer", keep_last=3).fit()
    trainer = go_on(tmp_path / "fewer", keep_last=1)
    trainer._save()
    assert names(tmp_path / "fewer") == ["best", "last"]


def test_a_checkpoint_of_the_same_step_replaces_the_last_one_alone(run):
    trainer = go_on(run)
    trainer._save()
    assert [step_of(folder) for folder in copies(run)] == [8, 4]


def test_f28_a_checkpoint_without_a_manifest_is_read_and_said(run, undisturbed, caplog):
    change_state(run / "last", lambda saved: None)
    trainer = go_on(run)
    assert trainer.steps_done == 8
    assert f"{run / 'last'} has no manifest.json, as checkpoints of older versions" in caplog.text
    trainer.fit()
    assert losses(run) == undisturbed.losses


def test_f07_weights_of_another_run_in_a_checkpoint_are_damage(run, undisturbed):
    shutil.copy(undisturbed.whole / "last" / "model.safetensors", run / "last")
    assert "its SHA-256 is not that" in find_damage(run / "last")


def test_f07_the_checkpoint_of_another_seed_is_refused(run, tmp_path):
    other = make(tmp_path / "other")
    other.seed = 8
    other.fit()
    shutil.rmtree(run / "last")
    shutil.copytree(tmp_path / "other" / "last.1", run / "last")
    with pytest.raises(ConfigError, match="written with seed=8 and cannot go on with 7"):
        go_on(run)


def test_other_data_are_refused(run):
    with pytest.raises(ConfigError, match="steps_per_epoch=4 and cannot go on with 5; give the da"):
        go_on(run, data=items(30))


def test_another_precision_is_refused(run):
    trainer = make(run)
    manifest = json.loads((run / "last" / MANIFEST).read_text())
    assert manifest["mixed_precision"] == "no"
    trainer.accelerator.state._mixed_precision, before = "bf16", "no"
    try:
        with pytest.raises(ConfigError, match="mixed_precision=no and .* set trainer.mixed_prec"):
            trainer.resume()
    finally:
        trainer.accelerator.state._mixed_precision = before


# --- Killed while a checkpoint is written ---------------------------------------------------------

CALLS = ("rename", "fsync", "unlink", "rmdir", "mkdir", "chmod")


def write(run, step, keep):
    model = torch.nn.Linear(1, 1)

    def write_files(folder):
        (folder / "model.safetensors").write_text(f"weights {step}")
        (folder / "trainer.pt").write_text(f"state {step}")

    write_checkpoint(run / "last", write_files, model, {"step": step}, keep)


def die_at(number, run, step, keep):
    """Write a checkpoint in a process that ends, as if killed, at its n-th call of the system."""
    if (child := os.fork()) == 0:
        left = [number]

        def counting(call):
            def counted(*words, **options):
                left[0] -= 1
                if left[0] < 0:
                    os._exit(9)
                return call(*words, **options)

            return counted

        for name in CALLS:
            setattr(os, name, counting(getattr(os, name)))
        try:
            write(run, step, keep)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_f06_a_kill_at_any_call_leaves_a_whole_checkpoint(tmp_path, keep):
    deaths = 0
    for step in range(1, 5):
        write(tmp_path / "run", step, keep)
    for number in range(200):
        run = shutil.copytree(tmp_path / "run", tmp_path / str(number))
        code = die_at(number, run, 5, keep)
        recover_last(run)
        found = [step_of(folder) for folder in copies(run)]
        assert all(find_damage(folder) is None for folder in copies(run))
        assert found[0] in (4, 5), (number, found)
        assert found == list(range(found[0], found[0] - len(found), -1)), (number, found)
        assert len(found) >= keep - (code == 9), (number, found)
        assert not list(run.glob("last.new-*"))
        if not code:
            break
        deaths += 1
    assert deaths >= 8 and code == 0 and found == list(range(5, 5 - keep, -1))


def test_folders_of_others_are_left_alone(tmp_path):
    for name in ("last.x", "last.01", "last.1.txt"):
        (tmp_path / name).mkdir()
    for step in (1, 2, 3):
        write(tmp_path, step, 2)
    recover_last(tmp_path)
    assert names(tmp_path) == ["last", "last.01", "last.1", "last.1.txt", "last.x"]


def test_a_run_opens_its_folder_once_more_and_finds_the_same(run):
    folder = RunFolder(run, {"resume": True, "overwrite": False})
    assert folder.open() and folder.open()
    assert step_of(run / "last") == 8
