"""A run of the first days, kept in tests/golden/early_run: one epoch of three steps.

Its checkpoint has no manifest, its config no batchnorm_group, its state a schedule.
"""

import json
import shutil
from pathlib import Path

import torch

from fusion.checkpoint import load_checkpoint
from fusion.config import choose
from fusion.models import MODELS
from fusion.tokens import Tokens
from fusion.training.log import read_metrics
from tests.training import test_trainer
from tests.training.doubles import ClipList

EARLY = Path(__file__).parents[2] / "golden" / "early_run"


def ramp(rows, width):
    return torch.arange(float(rows * width)).reshape(rows, width) / (rows * width)


def test_f28_an_early_checkpoint_embeds_as_it_did_then(caplog):
    model, words, _ = load_checkpoint(EARLY / "last")
    clip = {
        "text": words("a star plays a melody"),
        "video": ramp(3, 125),
        "audio": ramp(64, 40),
    }
    with torch.no_grad():
        found = model({name: Tokens.pack([rows]) for name, rows in clip.items()})
    expected = json.loads((EARLY / "embeddings.json").read_text())
    assert expected.keys() == {"t", "v", "a", "tv", "ta", "va"}
    for combination, numbers in expected.items():
        ours = found[combination][0]
        torch.testing.assert_close(ours, torch.tensor(numbers), rtol=0, atol=2e-5)
    assert "has no manifest.json, as checkpoints of older versions" in caplog.text


def test_f28_an_early_run_goes_on(tmp_path, monkeypatch, capsys):
    run = shutil.copytree(EARLY, tmp_path / "run")
    config = load_checkpoint(run / "last")[2]
    clips = [{"id": str(i), "text": ramp(1, 8) * i, "video": ramp(1, 125) * i} for i in range(12)]
    monkeypatch.setattr(test_trainer, "Towers", lambda: choose("model", config["model"], MODELS)())
    trainer = test_trainer.make(
        run,
        resume=True,
        data=ClipList(clips),
        epochs=2,
        batch_size=4,
        evaluate=lambda model: {"score": 0.0},
    )
    assert (trainer.epoch, trainer.steps_done) == (1, 3)
    moments = trainer.optimizer.state_dict()["state"]
    assert any(one["exp_avg"].any() for one in moments.values())
    trainer.fit()
    steps = [r["step"] for r in read_metrics(run / "metrics.jsonl") if r["event"] == "train"]
    assert steps == list(range(1, 7))
    assert (run / "last" / "manifest.json").exists() and (run / "last.1").exists()
