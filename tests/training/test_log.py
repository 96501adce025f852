"""A log that cannot be written costs no training, and odd lines of one are no rows."""

import errno
import json
from types import SimpleNamespace

import torch
from accelerate import Accelerator

from fusion.training import log as training_log
from fusion.training.log import RunLog, read_metrics
from fusion.training.trainer import Trainer


def test_f08_a_full_disk_at_the_log_is_said_once_and_its_rows_are_written_later(
    tmp_path, monkeypatch, capsys
):
    path = tmp_path / "metrics.jsonl"
    log, plain, full = RunLog(path, Accelerator(cpu=True), 9, 0, 0), training_log.append_text, []

    def append(to, text):
        if full:
            raise OSError(errno.ENOSPC, "No space left on device, while writing", str(to))
        plain(to, text)

    monkeypatch.setattr(training_log, "append_text", append)
    log.train(1, 1, {"loss": 1.0})
    full.append(True)
    log.train(1, 2, {"loss": 1.0})
    log.validation(1, 2, {"score": 1.0})
    assert [row["step"] for row in read_metrics(path)] == [1]
    full.clear()
    log.train(1, 3, {"loss": 1.0})
    log.close()
    assert [(row["event"], row["step"]) for row in read_metrics(path)] == [
        ("train", 1),
        ("train", 2),
        ("validation", 2),
        ("train", 3),
    ]
    said = capsys.readouterr().err
    assert said.count(f"{path} cannot be written") == 1 and "training goes on" in said


def test_f08_trackers_that_cannot_write_end_no_run(tmp_path, monkeypatch, capsys):
    accelerator = Accelerator(cpu=True)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(accelerator, "log", full)
    log = RunLog(tmp_path / "metrics.jsonl", accelerator, 9, 0, 0)
    log.train(1, 1, {"loss": 1.0})
    log.close()
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 1
    assert "curves of the trackers cannot be written" in capsys.readouterr().err


def test_f34_lines_that_are_no_rows_are_passed_over(tmp_path):
    path = tmp_path / "metrics.jsonl"
    row = {"event": "train", "epoch": 1, "step": 2, "loss": 0.5}
    odd = ["5", "null", '"x"', "[1]", "{}", '{"event": "train"}', "[" * 99_999, "\udcff", "NaN"]
    odd += [json.dumps(row | {"step": None}), json.dumps(row | {"epoch": "1"}), json.dumps(row)[:9]]
    path.write_bytes("\n".join([*odd, json.dumps(row), ""]).encode("utf-8", "surrogateescape"))
    assert read_metrics(path) == [row]
    assert read_metrics(tmp_path / "none") == []
    log = RunLog(path, Accelerator(cpu=True), 9, done=9, epochs_done=9)  # a run that goes on
    log.close()
    assert read_metrics(path) == [row] and len(path.read_text().splitlines()) == 1


def test_f17_terms_that_nothing_can_be_compared_in_are_named_once():
    """As those of sound, where no clip of a training set has any."""
    said = []
    log = SimpleNamespace(train=lambda *_: None, say=said.append)
    schedule = SimpleNamespace(get_last_lr=lambda: [0.1])
    trainer = SimpleNamespace(log=log, schedule=schedule, epoch=0, steps_done=1, absent=None)
    nan = torch.tensor(float("nan"))
    for second in (nan, torch.tensor(2.0)):
        terms = {"t|v": torch.tensor(1.0), "t|a": nan, "v|a": second}
        Trainer._log_step(trainer, torch.tensor(1.0), terms)
    for _ in range(2):
        Trainer._say_absent(trainer)
    assert len(said) == 1 and "they are not trained: t|a; check" in said[0]
    Trainer._log_step(trainer, torch.tensor(1.0), {"t|a": nan})
    Trainer._say_absent(trainer)
    assert len(said) == 1
