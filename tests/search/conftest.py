from copy import deepcopy

import pytest
import yaml

import fusion
from fusion.commands.train import train
from fusion.config import load_config
from tests.data.media.films import write_film
from tests.tiny import CONFIG


def train_tiny(folder, **changes):
    """Train a tiny model of half-second clips; ``changes`` are values by section and key."""
    config = deepcopy(CONFIG) | {"output": str(folder / "run")}
    config["trainer"]["epochs"] = 1
    config["data"]["version"] = 2  # two films of it train a model that tells films apart
    for path, value in changes.items():
        section, _, key = path.partition("__")
        if key:
            config[section][key] = value
        else:
            config[section] = value
    (folder / "tiny.yaml").write_text(yaml.safe_dump(config))
    train(load_config(folder / "tiny.yaml"))
    return folder / "run"


@pytest.fixture(scope="session")
def run(once):
    """Folder of a tiny model."""
    return once("search", train_tiny) / "run"


@pytest.fixture(scope="session")
def model(run):
    """The tiny model."""
    return fusion.load(run)


def write_films(folder):
    """Write three films: one with sound, one without, and one in a folder with captions."""
    write_film(folder / "a.mp4", 2)
    write_film(folder / "silent.mp4", 1.5, sound=False)
    write_film(folder / "more" / "c.mp4", 2)
    (folder / "more" / "c.csv").write_text("start,end,text\n0,0.5,a red star\n1,1.5,a star\n")
    return folder


@pytest.fixture
def films(tmp_path):
    """Three films, which a test may change."""
    return write_films(tmp_path / "films")
