"""The best epoch of a run, and early stopping."""

import pytest

from fusion.training.best import BestEpoch
from fusion.training.log import read_metrics
from fusion.training.settings import Settings
from tests.training.test_trainer import losses, make, state

SCORES = (1.0, 5.0, 3.0, 5.0, 4.0, 9.0)  # patience 2 runs out after the fourth epoch


def scored(scores, die_in=None):
    """Give an evaluation with these results in turn, which dies in one of the epochs."""
    left = iter(enumerate(scores, 1))

    def evaluate(model):
        epoch, score = next(left)
        if epoch == die_in:
            raise KeyboardInterrupt
        return {"score": score}

    return evaluate


def test_patience_counts_the_epochs_since_the_best():
    best, never = BestEpoch("score", patience=2), BestEpoch("score", None)
    seen = []
    for score, is_better in zip(SCORES, (True, True, False, False), strict=False):
        best.add(score, is_better)
        never.add(score, is_better)
        seen.append((best.score, best.waited, best.is_over))
    assert seen == [(1.0, 0, False), (5.0, 0, False), (5.0, 1, False), (5.0, 2, True)]
    assert not never.is_over


def test_patience_without_a_result_is_an_error():
    with pytest.raises(ValueError, match="waits for a better result, but the evaluation has none"):
        BestEpoch(None, patience=3).read({}, 1)
    with pytest.raises(ValueError, match="trainer.best=last compares none"):
        Settings(epochs=1, batch_size=1, learning_rate=1, best="last", patience=3)
    with pytest.raises(ValueError, match="trainer.patience must be at least 1; got 0"):
        Settings(epochs=1, batch_size=1, learning_rate=1, patience=0)


def test_training_ends_when_patience_runs_out_and_says_why(tmp_path, capsys):
    trainer = make(tmp_path, epochs=6, patience=2, evaluate=scored(SCORES))
    trainer.fit()
    assert (trainer.epoch, trainer.steps_done, trainer.steps) == (4, 16, 24)
    said = (
        "ended after epoch 4 of 6: no better score than 5.0 in the last 2 epochs"
        " (trainer.patience=2)"
    )
    assert trainer.why_ended == said
    assert capsys.readouterr().err.count(said) == 1
    last = read_metrics(tmp_path / "metrics.jsonl")[-1]
    assert last == {"event": "end", "epoch": 4, "step": 16, "reason": said}


def test_the_schedule_is_that_of_all_epochs(tmp_path):
    rates = []
    for name, epochs, patience in (("short", 6, 1), ("whole", 6, None)):
        evaluate = scored([9.0, 1, 1, 1, 1, 1])
        make(tmp_path / name, epochs=epochs, patience=patience, evaluate=evaluate).fit()
        rows = read_metrics(tmp_path / name / "metrics.jsonl")
        rates.append([row["learning_rate"] for row in rows if row["event"] == "train"])
    assert rates[0] == rates[1][:8]


@pytest.mark.parametrize("died", [3, 4])
def test_a_run_that_was_killed_ends_at_the_same_epoch(tmp_path, died):
    settings = {"epochs": 6, "patience": 2}
    whole = make(tmp_path / "whole", **settings, evaluate=scored(SCORES))
    whole.fit()
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "cut", **settings, evaluate=scored(SCORES, died)).fit()
    cut = make(tmp_path / "cut", **settings, resume=True, evaluate=scored(SCORES[died - 1 :]))
    cut.fit()
    assert cut.epoch == whole.epoch == 4
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    assert all(tensor.equal(state(whole)[name]) for name, tensor in state(cut).items())
    again = make(tmp_path / "cut", **settings, resume=True)  # it has ended: nothing is trained
    again.fit()
    rows = read_metrics(tmp_path / "cut" / "metrics.jsonl")
    assert (again.epoch, [row["event"] for row in rows].count("end")) == (4, 1)


def test_the_reason_is_logged_once_if_the_run_dies_before_it_is_saved(tmp_path):
    settings = {"epochs": 6, "patience": 1, "save_every": 4}  # also at the last step of an epoch
    trainer = make(tmp_path, **settings, evaluate=scored([9.0, 1.0]))
    save = trainer._save

    def die():
        if (trainer.epoch, trainer.batch) == (2, 0):
            raise KeyboardInterrupt
        save()

    trainer._save = die
    with pytest.raises(KeyboardInterrupt):
        trainer.fit()
    resumed = make(tmp_path, **settings, resume=True, evaluate=scored([1.0]))
    assert (resumed.epoch, resumed.batch) == (1, 4)
    resumed.fit()
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [row["event"] for row in rows].count("end") == 1


def test_all_processes_end_together_whatever_each_has_found(tool):
    code, output, errors = tool("tests/training/patience.py", processes=2)
    assert code == 0, errors
    assert output.split() == ["2", "2"]
