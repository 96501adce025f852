import signal
from datetime import timedelta

import pytest
import torch
from accelerate.utils import DistributedType

from fusion.training import launch
from fusion.training.launch import LaunchError, _check_launch, make_accelerator


def test_f11_another_number_of_processes_than_was_asked_for_is_refused():
    with pytest.raises(LaunchError, match="2 processes were asked for but 1 started; .* torchrun"):
        make_accelerator("no", None, num_processes=2)
    assert make_accelerator("no", None, num_processes=1).num_processes == 1


def test_f11_a_launcher_that_started_fewer_processes_than_it_says_is_refused(monkeypatch):
    class One:
        num_processes = 1

    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(LaunchError, match="4 processes were asked for but 1 started"):
        launch._check_processes(One(), None)


@pytest.mark.parametrize("on_cpu", [True, False])
def test_f11_accelerate_on_a_cpu_says_that_it_starts_one_process(monkeypatch, capsys, on_cpu):
    monkeypatch.setenv("ACCELERATE_USE_CPU", str(on_cpu))
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    make_accelerator("no", None)
    said = "accelerate launch starts one process on a CPU, whatever --num_processes says"
    assert (said in capsys.readouterr().err) == on_cpu


def test_accumulation_by_the_launcher_is_ignored_and_explained(monkeypatch, capsys):
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    accelerator = make_accelerator("no", None)
    assert accelerator.gradient_accumulation_steps == 1
    said = capsys.readouterr().err
    assert "gradient_accumulation_steps=4 of the launcher is ignored" in said
    assert "only their own small batch as negatives" in said
    assert "trainer.chunk_size" in said


@pytest.mark.parametrize("chosen", [None, "max_split_size_mb:64"])
def test_blocks_of_memory_may_grow_unless_the_user_chose_otherwise(monkeypatch, chosen):
    names = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
    for name in names:
        monkeypatch.setenv(name, "")
    if chosen:
        monkeypatch.setenv(names[1], chosen)
    monkeypatch.setattr("sys.platform", "linux")
    launch._let_segments_grow()
    expected = ["", chosen] if chosen else ["expandable_segments:True"] * 2
    assert [launch.os.environ[name] for name in names] == expected


def test_sharded_models_are_refused():
    class Sharded:
        distributed_type = DistributedType.FSDP

    with pytest.raises(LaunchError, match="the launcher chose FSDP, but here every process has"):
        _check_launch(Sharded())


@pytest.mark.parametrize(("chosen", "threads"), [(False, 2), (True, 1)])
def test_threads_of_the_launcher_are_replaced_and_those_of_the_user_kept(
    monkeypatch, chosen, threads
):
    """Launchers set OMP_NUM_THREADS; the user's own value is in the launcher's environment."""

    class Parent:
        def parent(self):
            return self

        def environ(self):
            return {"OMP_NUM_THREADS": "1"} if chosen else {}

    before = torch.get_num_threads()
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    monkeypatch.setattr(launch.psutil, "Process", Parent)
    monkeypatch.setattr(launch.os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    try:
        torch.set_num_threads(1)
        launch._use_all_cores()
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("variable", ["TORCHELASTIC_RUN_ID", "ACCELERATE_MIXED_PRECISION"])
def test_f05_a_process_that_a_launcher_started_ends_with_it(monkeypatch, variable):
    numbers = []
    monkeypatch.setattr(launch, "end_with_parent", numbers.append)
    monkeypatch.setattr(launch, "end_soon_after_parent", numbers.append)
    monkeypatch.delenv(variable, raising=False)
    make_accelerator("no", None)
    assert numbers == []  # a shell may end, as under nohup
    monkeypatch.setenv(variable, "no")
    make_accelerator("no", None)
    assert numbers == [signal.SIGTERM, launch.ORPHAN_SECONDS]


def test_f04_processes_that_are_started_again_meet_at_another_place(monkeypatch):
    met = []
    monkeypatch.setattr(launch.dist, "TCPStore", lambda *words, **more: words)
    monkeypatch.setattr(launch.dist, "PrefixStore", lambda *words: words)
    monkeypatch.setattr(launch.dist, "init_process_group", lambda b, **how: met.append((b, how)))
    place = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "here", "MASTER_PORT": "7"}
    for name, value in (place | {"TORCHELASTIC_USE_AGENT_STORE": "True"}).items():
        monkeypatch.setenv(name, value)
    for restart in ("0", "2"):
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", restart)
        launch._meet_after_restart("gloo", timedelta(minutes=1))
    ((backend, how),) = met
    assert backend == "gloo" and (how["rank"], how["world_size"]) == (1, 2)
    assert how["store"] == ("restart 2", ("here", 7, 2))
