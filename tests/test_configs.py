from pathlib import Path

import pytest
import torch
import yaml

from fusion.builders import check_config
from fusion.config import flatten, load_config

ROOT = Path(__file__).parents[1] / "configs"
CONFIGS = sorted(ROOT.rglob("*.yaml"))


def what_is_left_to_the_user(path):
    marked = yaml.safe_load(path.read_text())
    return [f"{key}=x" for key, value in flatten(marked).items() if value == "???"]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_config_builds_its_model_and_loss(path):
    builders = check_config(load_config(path, what_is_left_to_the_user(path)))
    with torch.device("meta"):
        model = builders["model"]()
    loss = builders["loss"](modalities=model.modalities)
    assert set(loss.combinations) <= set(model.combinations)


def test_there_are_configs():
    assert {path.name for path in CONFIGS} >= {"eao.yaml", "own_videos.yaml"}
