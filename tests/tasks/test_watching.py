"""A causal classifier that watches a film: the network's own answers, in constant memory."""

import gc
import json

import numpy as np
import pytest
import torch

from fusion.cli.main import main
from fusion.commands.train import train
from fusion.config import load_config
from fusion.data.media.encode import write_clip
from fusion.data.media.film import Film
from fusion.models.classifier import VideoClassifier
from fusion.models.frame_transforms import crop_for_test
from fusion.tasks.classification.watching import Watcher, open_watcher
from tests.data.labelled.made import ramp, write_films
from tests.tasks.test_classification import words

RATE = 12.0


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("watching")
    films = write_films(folder / "films", 4)
    given = words(films, folder / "run", **{"trainer.epochs": 2, "model.crop_size": 28})
    train(load_config("tsm/causal", given))
    return folder / "run"


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """Thirty frames of another size than those of the training."""
    path = tmp_path_factory.mktemp("film") / "long.mp4"
    frames = np.concatenate([ramp(n % 2, 10, 64, seed=n) for n in range(3)])
    write_clip(path, frames, RATE, None)
    return path


def offline(watcher, frames):
    """The network's scores of the whole film, averaged over the last frames: the definition."""
    clip = torch.from_numpy(frames).movedim(-1, 1)[None]
    (cropped,) = crop_for_test(clip, watcher.model.crop_size, 1)
    with torch.no_grad():
        logits = watcher.model.tsm.frame_logits(cropped)[0]
    means = [logits[max(0, t + 1 - watcher.window) : t + 1].mean(dim=0) for t in range(len(logits))]
    return torch.stack(means).softmax(dim=-1)


def read(watcher, film):
    sampling = watcher.size.sampling()
    object.__setattr__(sampling, "frames_per_second", RATE)
    return np.concatenate([p.data for p in Film(film, {"pictures": sampling}, False).pieces()])


def test_watching_gives_what_the_network_gives_for_the_whole_film(run, film):
    watcher = open_watcher(run)
    assert watcher.classes == ["falls", "rises"] and watcher.window == 4
    expected = offline(watcher, read(watcher, film))
    seen = [*watcher.watch_film(film, RATE)]
    assert [found.number for found in seen] == [*range(30)]
    found = torch.stack([found.probabilities for found in seen])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert found.std(dim=0).max() > 1e-3  # they differ from frame to frame
    assert len(watcher.times) == 30 and all(time >= 0 for time in watcher.times)


def test_frames_of_a_camera_are_scaled_as_those_of_films(run, film):
    pictures = np.concatenate([p.data for p in Film(film, {"x": _as_it_is()}, False).pieces()])
    assert pictures.shape == (30, 64, 64, 3)
    camera, watcher = open_watcher(run), open_watcher(run)
    seen = torch.stack([found.probabilities for found in camera.watch(iter(pictures))])
    other = torch.stack([found.probabilities for found in watcher.watch_film(film, RATE)])
    torch.testing.assert_close(seen, other, rtol=0, atol=0.02)  # colours are rounded before scaling


def _as_it_is():
    from fusion.data.media.pictures import Sampling

    return Sampling(RATE, (64, 64))


def test_a_longer_film_takes_no_more_memory(run):
    watcher, kept = open_watcher(run, window=3), []
    for number, picture in enumerate(_frames(40)):
        watcher.see(picture)
        if number in (5, 39):
            kept.append(_tensors())
    assert kept[0] == kept[1]
    assert watcher.times.maxlen and len(watcher._filters) == 1


def _tensors():
    """Count the tensors that there are, and their bytes."""
    gc.collect()
    tensors = [x for x in gc.get_objects() if isinstance(x, torch.Tensor)]
    sizes = {x.untyped_storage()._cdata: x.untyped_storage().nbytes() for x in tensors}
    return len(tensors), sum(sizes.values())


def _frames(count):
    return (ramp(frames=1, side=48, seed=n)[0] for n in range(count))


def test_the_command_prints_what_changes_and_the_latency(run, film, capsys):
    main(["watch", str(run), str(film), "--fps", "12", "--json"])
    out, err = capsys.readouterr()
    rows = [json.loads(line) for line in out.splitlines()]
    assert len(rows) == 30 and rows[-1]["second"] == 2.417
    assert {*rows[0]} == {"second", "class", "probability", "cpu_ms"}
    assert "30 frames; each took" in err
    main(["watch", str(run), str(film), "--fps", "12"])
    lines = capsys.readouterr().out.splitlines()
    classes = [row["class"] for row in rows]
    changes = [k for k in range(30) if k == 0 or classes[k] != classes[k - 1]]
    assert [line.split()[0] for line in lines] == [f"{k / 12:.1f}" for k in changes]
    assert all(line.endswith(classes[k]) for line, k in zip(lines, changes, strict=True))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothing.mp4"], "nothing.mp4: no such file"),
        (["FILM", "--fps", "0"], "--fps: must be a number above 0 and at most 1000; got 0"),
        (["FILM", "--window", "0"], "--window: must be a whole number and at least 1; got 0"),
    ],
)
def test_mistakes_are_explained(words, message, run, film, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["watch", str(run), *(str(film) if word == "FILM" else word for word in words)])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_other_networks_cannot_watch(run, once, tmp_path):
    network = {"block": "basic", "layers": [1, 1, 1, 1], "widths": [8, 8, 8, 8]}
    plain = VideoClassifier(network, 2, crop_size=28)
    with pytest.raises(ValueError, match="only a causal network can be streamed"):
        Watcher(plain, ["a", "b"], open_watcher(run).size, 4)
    with pytest.raises(ValueError, match="does not classify films"):
        open_watcher(once.tiny_run())


def test_a_frame_that_is_none_is_refused(run):
    with pytest.raises(ValueError, match=r"a frame is an \(H, W, 3\) array of uint8 RGB; got"):
        open_watcher(run).see(np.zeros((20, 20), np.uint8))
