import pytest

from fusion.training.launch import _is_launcher, _processes_of_launch

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
