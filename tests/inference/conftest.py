import pytest

import fusion
from fusion.config import load_config


@pytest.fixture(scope="session")
def run(once):
    """The folder of a tiny run on the built-in corpus."""
    return once.tiny_run()


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
