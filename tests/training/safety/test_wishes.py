"""Stopping and saving: what any rank wants is what all do, in the same step."""

import os
import signal
import time

import psutil
import pytest

from fusion.distributed import Agreement
from fusion.manifest import check_files
from fusion.training.launch import Stopped, is_restart_of, launch_name, stops_raise
from fusion.training.run_folder import LAUNCH, RunFolder
from fusion.training.safety.wishes import AT_END, Wishes
from tests.processes import start
from tests.tiny import write_config
from tests.training.test_trainer import Interrupter, items, losses, make

STOPS = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]


class OfRanks(Agreement):
    """The agreement of this rank with others whose wishes are known."""

    def __init__(self, *others):
        super().__init__()
        self.others = others

    def _exchange(self, number, wish):
        return [number] * (1 + len(self.others)), [wish, *self.others]


def test_a_vote_carries_what_any_rank_asks_for():
    agreement = OfRanks(30, 0)
    agreement.ask = lambda: 5
    assert agreement.gather(7) == [7, 7, 7] and agreement.asked == 30
    agreement.ask = lambda: 40
    assert agreement.gather(0) == [0, 0, 0] and agreement.asked == 40
    alone = Agreement()
    assert alone.gather(3) == [3] and alone.asked == 0


def test_f02_a_signal_of_another_rank_stops_this_one():
    wishes = Wishes(OfRanks(2 * signal.SIGTERM, 0), None)
    wishes.agreement.gather(0)
    assert (wishes.received, wishes.save) == (signal.SIGTERM, True)


def test_a_checkpoint_is_due_after_some_minutes_or_before_an_evaluation(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    wishes = Wishes(Agreement(), 10.0)

    def asked(seconds, is_last=False):
        now[0], wishes.is_last = 100.0 + seconds, is_last
        wishes.agreement.gather(0)
        assert wishes.received == 0
        return wishes.save

    assert [asked(599), asked(600), asked(AT_END - 1, True), asked(AT_END, True)] == [0, 1, 0, 1]
    wishes.begin()
    assert not asked(AT_END, False)
    never = Wishes(Agreement(), None)
    now[0] = 1e9
    never.agreement.gather(0)
    assert not never.save


def test_a_run_saves_by_time(tmp_path, monkeypatch):
    trainer = make(tmp_path, epochs=1, save_every_minutes=0.0)
    saved = []
    monkeypatch.setattr(trainer, "_save", lambda: saved.append(trainer.steps_done))
    trainer.fit()
    assert saved == [1, 2, 3, 4, 4]


@pytest.mark.parametrize("number", STOPS)
def test_f02_any_of_the_signals_is_noticed_in_its_step(tmp_path, number, monkeypatch):
    """Whatever ``log_every`` is; the step that read the clip is the last one."""
    monkeypatch.setattr(signal, "SIGTERM", number)  # what the data send
    trainer = make(tmp_path, data=Interrupter(items(), 9), log_every=100)
    with pytest.raises(Stopped) as stop:
        trainer.fit()
    assert stop.value.signal == number
    assert trainer.steps_done == check_files(tmp_path / "last")["step"] == 2


@pytest.mark.parametrize("epochs", [1, 3])
def test_f02_a_signal_in_an_evaluation_stops_the_run_after_it(tmp_path, epochs):
    def evaluate(model):
        signal.raise_signal(signal.SIGTERM)
        return {"score": 1.0}

    with pytest.raises(Stopped):
        make(tmp_path, epochs=epochs, evaluate=evaluate).fit()
    assert check_files(tmp_path / "last")["epoch"] == check_files(tmp_path / "best")["epoch"] == 1


def test_under_nohup_a_closed_terminal_stops_nothing(tmp_path):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        make(tmp_path, epochs=1, evaluate=lambda m: signal.raise_signal(1) or {"score": 1.0}).fit()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_outside_of_training_a_signal_is_an_error_with_its_number():
    with pytest.raises(Stopped, match="^stopped by SIGTERM$") as stop, stops_raise():
        signal.raise_signal(signal.SIGTERM)
        time.sleep(1)
    assert stop.value.signal == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


# --- Started again by the launcher ----------------------------------------------------------------


@pytest.mark.parametrize("config", [{"resume": False, "overwrite": True}, {"resume": False}])
def test_f04_a_run_that_its_launcher_starts_again_goes_on(tmp_path, monkeypatch, config):
    make(tmp_path, epochs=1).fit()
    config = {"overwrite": False, **config}
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    (tmp_path / LAUNCH).write_text("another launcher")
    run = RunFolder(tmp_path, config)
    assert not run.resumes and run.overwrites == config["overwrite"]
    (tmp_path / LAUNCH).write_text(launch_name())
    assert run.resumes and not run.overwrites
    assert run.open()
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    assert not is_restart_of(tmp_path / LAUNCH)


# --- Whole processes ------------------------------------------------------------------------------


def wait_for(condition, seconds=100):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def steps(run):
    return [step for step, _ in losses(run)] if (run / "metrics.jsonl").exists() else []


@pytest.mark.parametrize("number", STOPS)
def test_f02_a_signal_to_all_processes_at_once_saves_the_run(tmp_path, number):
    """As schedulers do: the workers that read get it, too, and must not end before the run has."""
    trainer = {"epochs": 500, "num_workers": 1, "save_every_minutes": None}
    config, run = write_config(tmp_path, trainer=trainer), tmp_path / "run"
    process = start("tools/train.py", config, errors=tmp_path / "errors")
    wait_for(lambda: steps(run))
    everyone = psutil.Process(process.pid)
    for one in [*everyone.children(recursive=True), everyone]:
        one.send_signal(number)
    process.join(60)
    errors = (tmp_path / "errors").read_text()
    assert process.exitcode == 128 + number, errors
    said = f"stopped by {number.name}; go on with resume=true"
    assert errors.strip().splitlines()[-1] == said and "Traceback" not in errors
    assert check_files(run / "last")["step"] >= steps(run)[-1]


def test_f03_a_signal_to_one_of_two_ranks_stops_both_in_one_step(tmp_path):
    from torch.distributed import TCPStore

    from tests.processes import _place

    trainer = {"epochs": 500, "log_every": 1000}
    config, run = write_config(tmp_path, trainer=trainer), tmp_path / "run"
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    ranks = [
        start("tools/train.py", config, errors=tmp_path / str(rank), **_place(rank, 2, store))
        for rank in range(2)
    ]
    wait_for(lambda: steps(run))
    os.kill(ranks[1].pid, signal.SIGTERM)
    for process in ranks:
        process.join(60)
    assert [process.exitcode for process in ranks] == [143, 143]
    said = [(tmp_path / str(rank)).read_text() for rank in range(2)]
    assert said[0].strip().endswith("stopped by SIGTERM; go on with resume=true")
    assert "stopped" not in said[1]
    assert check_files(run / "last")["processes"] == 2
