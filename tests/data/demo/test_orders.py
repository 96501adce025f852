"""Films of the order classes: only the order of the frames tells the two classes of a pair."""

import io
import json

import av
import numpy as np
import pytest

from fusion.data.demo.orders import CLASSES, PAIRS, orders_folder
from fusion.data.demo.orders.draw import draw_film, draw_forwards
from fusion.data.demo.orders.folder import encode
from fusion.data.demo.orders.plan import plan_films


def decoded(data):
    with av.open(io.BytesIO(data)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def test_every_class_has_equally_many_films_in_each_split():
    films = plan_films()
    for split in ("train", "validation", "test"):
        labels = [film.label for film in films if film.split == split]
        assert {labels.count(name) for name in CLASSES} == {len(labels) // 8}
    assert len({film.path for film in films}) == len(films)


def test_the_second_class_of_a_pair_is_the_first_played_backwards():
    """The frames are then the same, whatever is drawn: without their order, they tell nothing."""
    for film in plan_films(16)[:16]:
        forwards = draw_forwards(film)
        twin = film._replace(label=PAIRS[film.pair][0])
        assert np.array_equal(draw_forwards(twin), forwards)  # the label changes no other draw
        turned = forwards[::-1] if film.is_reversed else forwards
        assert np.array_equal(draw_film(film), turned)


def test_an_encoded_frame_does_not_depend_on_its_place():
    """Else a network could see the place of a frame, and with it the order."""
    frames = draw_film(plan_films()[2])
    assert np.array_equal(decoded(encode(frames)), decoded(encode(frames[::-1]))[::-1])
    with av.open(io.BytesIO(encode(frames))) as container:
        assert all(packet.is_keyframe for packet in container.demux() if packet.size)


def centre(frame, still):
    """The column around which a frame differs from a picture."""
    weights = np.abs(frame - still).sum(axis=(0, 2))
    return (np.arange(len(weights)) * weights).sum() / weights.sum()


def test_films_show_their_class():
    films = [film for film in plan_films() if film.split == "test"]
    for film in films[:40]:
        frames = draw_film(film).astype(float)
        sign = -1 if film.is_reversed else 1
        if film.pair == "recolours":
            change = sign * (frames[-1] - frames[0])
            changed = change[np.abs(change).sum(axis=-1) > 60]
            assert changed[:, 2].mean() > changed[:, 0].mean()  # more blue, less red
        if film.pair == "moves":
            still = np.median(frames, axis=0)
            assert sign * (centre(frames[-1], still) - centre(frames[0], still)) > 5


def test_a_folder_is_rendered_once_and_is_the_beginning_of_the_whole(tmp_path):
    folder = orders_folder(8, cache=tmp_path)
    rows = (folder / "train.csv").read_text().splitlines()
    assert rows[0] == "video,label,pair" and len(rows) == 9
    assert json.loads((folder / "pairs.json").read_text())["fades"] == ["appears", "vanishes"]
    film = plan_films()[3]
    assert (folder / film.path).read_bytes() == encode(draw_film(film))
    assert orders_folder(8, cache=tmp_path) == folder
    assert len(list((folder / "videos").iterdir())) == 24


@pytest.mark.parametrize("number", [0, 7, 12, 9999])
def test_an_impossible_number_of_films_is_explained(number):
    with pytest.raises(ValueError, match="training_films is .*; it must be a multiple of 8"):
        plan_films(number)
