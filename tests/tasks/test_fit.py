import re

import pytest

from fusion.builders import check_config
from fusion.config import ConfigError, load_config
from fusion.models.batchnorm import batch_granularity
from fusion.tasks.classification.task import Classification
from fusion.tasks.fit import fit_config, fit_trainer
from fusion.training.settings import Settings
from tests.test_configs import CONFIGS, what_is_left_to_the_user

OWN = next(path for path in CONFIGS if path.stem == "own_videos")


class NoData:
    """A data set that must not be read."""

    def fit(self):
        return {}


@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("clips", [6, 7, 13, 30, 33, 63, 64, 65, 1000])
def test_batch_group_and_chunk_fit_together(clips, processes, caplog):
    config = load_config(OWN, ["data.train=x", "trainer.chunk_size=40"])
    fitted = fit_trainer(config, clips, processes)
    trainer = fitted["trainer"]
    group = fitted["model"]["modalities"]["audio"]["encoder"]["batchnorm_group"]
    assert clips * 0.7 <= trainer["batch_size"] <= clips or trainer["batch_size"] > 48
    assert 2 <= group <= 32 and trainer["batch_size"] <= 64
    assert trainer["batch_size"] % (group * processes) == 0
    assert trainer["chunk_size"] % group == 0
    assert 10 <= trainer["epochs"] <= 100
    assert f"{clips} training clips: batches of {trainer['batch_size']}" in caplog.text
    assert len(caplog.records) == 1
    check_config(fitted)["model"]()


@pytest.mark.parametrize("batch_size", [16, 30, 64])
@pytest.mark.parametrize("clips", [8, 13, 15, 16, 30, 31, 33, 63, 64, 65, 1000])
def test_they_do_not_depend_on_the_number_of_processes(clips, batch_size):
    config = load_config(OWN, ["data.train=x", f"trainer.batch_size={batch_size}"])
    one, two, four = (fit_trainer(config, clips, processes) for processes in (1, 2, 4))
    assert one == two
    assert clips < 16 or one == four


def test_the_way_out_that_is_named_trains(caplog):
    config = load_config(OWN, ["data.train=x"])
    fit_trainer(config, 100, 1)
    way = re.search(r"; (trainer.fit=false .*) takes the config's numbers", caplog.text)
    Settings(**load_config(OWN, ["data.train=x", *way[1].split()])["trainer"])


def test_numbers_of_the_user_are_kept():
    config = load_config(OWN, ["data.train=x", "trainer.epochs=3", "trainer.batch_size=8"])
    trainer = fit_trainer(config, 1000, 1)["trainer"]
    assert (trainer["epochs"], trainer["batch_size"]) == (3, 8)


def test_too_few_clips_are_refused():
    with pytest.raises(ConfigError, match="3 training clips on 2 devices, each of which needs"):
        fit_trainer(load_config(OWN, ["data.train=x"]), 3, 2)


FITTED = (OWN.stem, "vqa")  # recipes that leave widths to the data


@pytest.mark.parametrize(
    "path",
    [p for p in CONFIGS if not {p.stem, p.parent.name} & {*FITTED}],
    ids=lambda path: path.stem,
)
def test_other_recipes_leave_nothing_to_the_data(path):
    config = load_config(path, what_is_left_to_the_user(path))
    assert fit_config(config, NoData(), lambda split: None, 1) is config


class Films(NoData):
    """Twelve films of two classes."""

    class_names = ("a", "b")

    def clips(self, split):
        return [{"video": None}] * 12


def test_a_classifier_is_fitted_too():
    changes = ["trainer.fit=true", "trainer.chunk_size=16", "model.batchnorm_group=16"]
    task = Classification(load_config("tsm", changes))
    task.source = Films()
    fitted = task.fit(1)
    assert (fitted["trainer"]["batch_size"], fitted["model"]["batchnorm_group"]) == (12, 6)
    assert fitted["trainer"]["chunk_size"] == 12 and fitted["model"]["num_classes"] == 2
    assert batch_granularity(task.build()[0]) == 6


def test_another_number_of_classes_than_that_of_the_data_is_refused():
    right, wrong = (
        Classification(load_config("tsm", [f"model.num_classes={number}"])) for number in (2, 3)
    )
    right.source = wrong.source = Films()
    assert right.fit(1)["model"]["num_classes"] == 2
    with pytest.raises(ConfigError, match="model.num_classes is 3, but the data has 2 classes"):
        wrong.fit(1)
