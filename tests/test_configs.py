from pathlib import Path

import pytest
import torch

from fusion.config import load_config
from fusion.experiment import check_config

ROOT = Path(__file__).parents[1] / "configs"
CONFIGS = sorted(ROOT.rglob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_config_builds_its_model_and_loss(path):
    needed = ["data.train=x", "data.validation=x"] if "own" in path.name else []
    builders = check_config(load_config(path, needed))
    with torch.device("meta"):
        model = builders["model"]()
    loss = builders["loss"](modalities=model.modalities)
    assert set(loss.combinations) <= set(model.combinations)


def test_there_are_configs():
    assert {path.name for path in CONFIGS} >= {"eao.yaml", "own_videos.yaml"}
