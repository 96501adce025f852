import pytest

import fusion
from fusion.commands.train import train
from fusion.config import load_config
from tests.data.media.films import write_film
from tests.tiny import write_config


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """A tiny model of half-second clips."""
    folder = tmp_path_factory.mktemp("search")
    train(load_config(write_config(folder, trainer={"epochs": 1})))
    return fusion.load(folder / "run")


@pytest.fixture
def films(tmp_path):
    """Three films: one with sound, one without, and one in a folder with captions."""
    folder = tmp_path / "films"
    write_film(folder / "a.mp4", 2)
    write_film(folder / "silent.mp4", 1.5, sound=False)
    write_film(folder / "more" / "c.mp4", 2)
    (folder / "more" / "c.csv").write_text("start,end,text\n0,0.5,a red star\n1,1.5,a star\n")
    return folder
