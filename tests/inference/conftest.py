import pytest

import fusion
from fusion.commands.train import train
from fusion.config import load_config
from tests.tiny import write_config


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """The folder of a tiny run on the built-in corpus."""
    folder = tmp_path_factory.mktemp("inference")
    train(load_config(write_config(folder, trainer={"epochs": 1})))
    return folder / "run"


@pytest.fixture(scope="session")
def model(run):
    return fusion.load(run)


@pytest.fixture(scope="session")
def test_clips(run):
    """The test clips as evaluation reads them."""
    from fusion.tasks import make_task

    config = load_config(run / "config.yaml")
    task = make_task(config)
    task.open_encoders(run / "best")
    task.open_data()
    return task.clips("test")
