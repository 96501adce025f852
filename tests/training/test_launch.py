import pytest
from accelerate.utils import DistributedType

from fusion.training.launch import (
    LaunchError,
    _check_launch,
    _is_launcher,
    _launch_options,
    _processes_of_launch,
    make_accelerator,
)

ASKED = ["--cpu", "--num_processes", "2", "tools/train.py", "--num_processes", "9"]


@pytest.mark.parametrize(
    "words",
    [
        ["python", "/usr/bin/accelerate", "launch", *ASKED],
        ["accelerate", "launch", "--num-processes=2", "tools/train.py"],
        ["python", "/venv/bin/accelerate-launch", *ASKED],
        ["python", "-m", "accelerate.commands.launch", *ASKED],
        ["python", "-m", "accelerate.commands.accelerate_cli", "launch", *ASKED],
        ["python", "site-packages/accelerate/commands/launch.py", *ASKED],
    ],
)
def test_what_was_asked_is_read_from_the_command(words):
    assert _processes_of_launch(words) == 2
    assert _is_launcher(words)


def test_torchrun_is_a_launcher_and_a_shell_is_none():
    assert _is_launcher(["python", "/venv/bin/torchrun", "--nproc_per_node", "2", "x.py"])
    assert _is_launcher(["python", "-m", "torch.distributed.run", "x.py"])
    assert not _is_launcher(["bash", "-c", "python tools/train.py"])


@pytest.mark.parametrize(
    "words",
    [
        ["bash"],
        ["python", "launch", "tools/train.py"],
        ["accelerate", "launch", "--config_file", "nowhere.yaml", "tools/train.py"],
        ["pytest", "--num_processes", "2"],
    ],
)
def test_other_commands_ask_for_one(words):
    assert _processes_of_launch(words) == 1


def test_accumulation_by_the_launcher_is_left_out_and_explained(monkeypatch, capsys):
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    accelerator = make_accelerator("no", None)
    assert accelerator.gradient_accumulation_steps == 1
    said = capsys.readouterr().err
    assert "gradient_accumulation_steps=4 of the launcher is left out" in said
    assert "only their own small batch as negatives" in said
    assert "trainer.chunk_size" in said


def test_accumulation_is_read_from_the_command_too():
    words = ["accelerate", "launch", "--gradient_accumulation_steps", "4", "tools/train.py", "x=1"]
    assert _launch_options(words)["gradient_accumulation_steps"] == "4"
    assert "gradient_accumulation_steps" not in _launch_options(["python", *words[2:]])


def test_ways_to_spread_a_model_that_are_not_known_are_refused(monkeypatch):
    class Spread:
        distributed_type = DistributedType.FSDP

    with pytest.raises(LaunchError, match="the launcher chose FSDP, but here every process has"):
        _check_launch(Spread())
