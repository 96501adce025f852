"""The images of a data set are decoded once, into one file of the cache."""

import logging
import multiprocessing
import os
import pickle
import shutil

import pytest
import torch

from fusion.data.questions import images as module
from fusion.data.questions.decode import ImageError
from fusion.data.questions.images import Images
from tests.data.questions.made import close, save_image

NAMES = ["a.png", "b.png", "c.png"]
COLOURS = [(200, 0, 0), (0, 200, 0), (0, 0, 200)]


@pytest.fixture
def folder(tmp_path, cache):
    for name, colour in zip(NAMES, COLOURS, strict=True):
        save_image(tmp_path / "images" / name, colour)
    return tmp_path / "images"


def test_an_image_is_a_token_of_pixels(folder):
    images = Images(folder, ["c.png", "a.png", "b.png", "a.png"], 6)
    assert len(images) == 3
    for name, colour in zip(NAMES, COLOURS, strict=True):
        image = images.read(name)
        assert image.shape == (1, 3, 6, 6) and image.dtype == torch.uint8
        assert close(image[0], colour, 0)
    assert images.read("unknown.png").shape == (0, 3, 6, 6)


def test_images_are_decoded_once(folder, monkeypatch):
    Images(folder, NAMES, 6).fill()
    monkeypatch.setattr(module, "decode_image", None)
    assert close(Images(folder, NAMES[::-1], 6).read("b.png")[0], COLOURS[1], 0)


def test_a_changed_image_is_decoded_again(folder):
    Images(folder, NAMES, 6).fill()
    save_image(folder / "a.png", (1, 2, 3))
    os.utime(folder / "a.png", (1, 1))
    assert close(Images(folder, NAMES, 6).read("a.png")[0], (1, 2, 3), 0)


def test_another_size_is_another_file(folder):
    assert Images(folder, NAMES, 6).read("a.png").shape[-1] == 6
    assert Images(folder, NAMES, 9).read("a.png").shape[-1] == 9


def test_an_unreadable_image_is_missing_counted_and_named(folder, caplog):
    (folder / "b.png").write_bytes(b"none")
    images = Images(folder, [*NAMES, "d.png"], 6)
    with caplog.at_level(logging.WARNING):
        images.check("q.csv", "missing", 0.5)
    assert "q.csv: 2 of 4 images in" in caplog.text
    assert "b.png: no image that is read" in caplog.text and "d.png: no such file" in caplog.text
    assert "taken as missing" in caplog.text
    assert images.read("b.png").shape == images.read("d.png").shape == (0, 3, 6, 6)
    assert close(images.read("c.png")[0], COLOURS[2], 0)
    with pytest.raises(ValueError, match=r"that is more than data.max_bad \(0.4\) allows"):
        images.check("q.csv", "missing", 0.4)
    again = Images(folder, [*NAMES, "d.png"], 6)
    assert again.unreadable == images.unreadable


def test_a_missing_folder_or_no_image_at_all_is_one_line(folder):
    with pytest.raises(ImageError, match=r"data.images: there is no folder .*nowhere.*name that"):
        Images(folder / "nowhere" / "x", NAMES, 6)
    with pytest.raises(ImageError, match=r"has none of 2 images .*\(such as x.png\); name the"):
        Images(folder, ["y.png", "x.png"], 6)


class Stop(Exception):
    pass


def test_an_interrupted_run_goes_on_where_it_was(folder, cache, monkeypatch):
    monkeypatch.setattr(Images, "at_a_time", 1)
    (folder / "a.png").write_bytes(b"none")
    decoded = []

    def decode(path, size):
        decoded.append(path.name)
        if path.name == "c.png" and decoded.count("c.png") == 1:
            raise Stop
        return plain(path, size)

    plain = module.decode_image
    monkeypatch.setattr(module, "decode_image", decode)
    with pytest.raises(Stop):
        Images(folder, NAMES, 6).fill()
    part = next(cache.glob("*.part"))
    with part.open("ab") as file:
        file.write(b"half an image")
    images = Images(folder, NAMES, 6)
    assert list(images.unreadable) == ["a.png"]
    assert close(images.read("b.png")[0], COLOURS[1], 0)
    assert close(images.read("c.png")[0], COLOURS[2], 0)
    assert decoded == ["a.png", "b.png", "c.png", "c.png"]
    assert sorted(p.suffix for p in cache.iterdir()) == [".json", ".lock", ".pixels"]


def test_a_damaged_cache_is_made_again(folder, cache):
    Images(folder, NAMES, 6).fill()
    pixels = next(cache.glob("*.pixels"))
    pixels.write_bytes(pixels.read_bytes()[:-1])
    assert close(Images(folder, NAMES, 6).read("c.png")[0], COLOURS[2], 0)


def test_a_full_disk_is_one_line(folder, monkeypatch):
    usage = shutil.disk_usage(folder)._replace(free=0)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(ImageError, match=r"no space for 3 images in .*lower data.image_size \(6\)"):
        Images(folder, NAMES, 6).fill()


def test_a_data_loading_process_maps_the_file_itself(folder):
    images = Images(folder, NAMES, 600)
    images.read("a.png")
    packed = pickle.dumps(images)
    assert len(packed) < 10_000
    assert close(pickle.loads(packed).read("b.png")[0], COLOURS[1], 0)


def _fill(folder, queue):
    queue.put(Images(folder, NAMES, 6).read("b.png").sum().item())


def test_several_processes_share_the_work(folder, cache):
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    workers = [context.Process(target=_fill, args=(folder, queue)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [queue.get() for _ in workers] == [200 * 36] * 3
    assert sorted(p.suffix for p in cache.iterdir()) == [".json", ".lock", ".pixels"]
