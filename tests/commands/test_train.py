"""The main job on data that is not the built-in corpus, in this process."""

import pickle

import numpy as np
import pytest

from fusion.commands.train import train
from fusion.config import ConfigError, load_config
from tests.tiny import write_config


def write_pickle(path, count, width=100):
    """Write clips in the published layout, with 2D features so wide and 3D features 25 wide."""
    rng = np.random.default_rng(count)
    clips = [
        {
            "id": f"{path.stem}{i}",
            "2d": rng.random((4, width), dtype=np.float32),
            "3d": rng.random((6, 25), dtype=np.float32),
            "audio": rng.random((40, 64), dtype=np.float32),
            "caption": ["one two three"],
            "eval_caption": "one two three",
        }
        for i in range(count)
    ]
    path.write_bytes(pickle.dumps(clips))
    return str(path)


def config(tmp_path, **data):
    data = {"name": "pickles", "train": write_pickle(tmp_path / "train.pkl", 8)} | data
    trainer = {"epochs": 2, "batch_size": 4, "learning_rate": 0.01, "log_every": 1}
    path = write_config(tmp_path, trainer=trainer)
    text = path.read_text().replace("films: 2", "").replace("name: demo", "name: pickles")
    path.write_text(text)
    return load_config(path, [f"data.{key}={value}" for key, value in data.items()])


def test_a_run_on_training_clips_alone_ends_with_a_report(tmp_path, capsys):
    train(config(tmp_path))
    folder = tmp_path / "run"
    assert "Not evaluated" in (folder / "report.html").read_text()
    assert not (folder / "results.json").exists()
    assert "nothing to evaluate on: the data has training clips alone" in capsys.readouterr().out
    assert (folder / "best" / "model.safetensors").exists()


@pytest.mark.parametrize("split", ["test", "validation"])
def test_wrong_test_clips_are_found_before_training(tmp_path, split):
    file = write_pickle(tmp_path / "wide.pkl", 4, width=101)
    with pytest.raises(ConfigError, match="video.dim is 125, but the data are 126 wide"):
        train(config(tmp_path, **{split: file}))
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
