"""A model of a feature store computes the features of films with the networks of the store."""

import pytest

import fusion
from fusion.checkpoint import CheckpointError, read_recipe
from fusion.commands.train import train
from fusion.config import load_config, to_yaml
from fusion.extract.job import extract
from fusion.inference.features import FilmFeatures
from fusion.tasks import make_task
from tests.data.media.films import write_film
from tests.extract.tiny import TINY, use_tiny_networks
from tests.inference.compare import assert_as_evaluation, at_one_time
from tests.tiny import CONFIG

pytestmark = pytest.mark.filterwarnings("ignore:.*longer than the model takes:UserWarning")


@pytest.fixture(autouse=True, scope="module")
def tiny_networks():
    with pytest.MonkeyPatch.context() as patch:
        use_tiny_networks(patch)
        yield


@pytest.fixture(scope="module")
def run(tiny_networks, tmp_path_factory):
    """A run on the features of tiny networks."""
    folder = tmp_path_factory.mktemp("networks")
    sizes = [(36, 64), (40, 40), (64, 36)]
    films = [
        write_film(
            folder / f"films/{i}.mp4", 3 + i / 4, fps=10 + i, sound=i != 4, size=sizes[i % 3]
        )
        for i in range(8)
    ]
    extract([folder / "films"], folder / "store", TINY)
    lines = "".join(f"{film.name},0,3,a red star {i}\n" for i, film in enumerate(films))
    (folder / "c.csv").write_text("video,start,end,text\n" + lines)
    captions = dict.fromkeys(("train", "validation", "test"), str(folder / "c.csv"))
    config = CONFIG | {
        "output": str(folder / "run"),
        "data": captions | {"name": "videos", "store": str(folder / "store")},
        "model": CONFIG["model"]
        | {"modalities": CONFIG["model"]["modalities"] | {"video": {"dim": 12}}},
        "trainer": CONFIG["trainer"] | {"epochs": 1},
    }
    (folder / "config.yaml").write_text(to_yaml(config))
    train(load_config(folder / "config.yaml"))
    return folder / "run"


def test_it_embeds_films_as_evaluation_does(run):
    config = load_config(run / "config.yaml")
    task = make_task(config)
    task.open_encoders(run / "best")
    task.open_data()
    clips = at_one_time(task.clips("test"), 0.5, 2.5)
    clips.folder = run.parent / "films"
    model = fusion.load(run, device="cpu")
    assert "extractor" not in model.recipe["features"]
    assert_as_evaluation(model, clips, ["v", "a", "va", "tva"], 3)


def test_networks_of_other_weights_are_refused(run):
    features = read_recipe(run)["features"]
    other = features | {"2d": features["2d"] | {"weights": "others"}}
    message = "the model was trained with features of 2d: .*others.* .the weights here: .*tiny"
    with pytest.raises(CheckpointError, match=message):
        FilmFeatures(other)


def test_an_extractor_that_is_not_here_is_named():
    with pytest.raises(CheckpointError, match="features of 'marvels', and this version of fusion"):
        FilmFeatures({"extractor": "marvels", "version": "1"})
