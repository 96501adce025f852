"""Decoding on a GPU, and what happens where there is none."""

import logging
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from av.codec.hwaccel import hwdevices_available

from fusion.data.media import device
from fusion.data.media.decode import Decoder, open_media
from fusion.data.media.device import CPU, CUDA, VARIABLE, decoding_device
from fusion.data.media.shown import Size, read_shown
from tests.data.media.test_shown import CODINGS, SIZE, write

ALL = [5, 40, 41, 99]


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    path = tmp_path_factory.mktemp("films") / "film.mp4"
    write(path, *CODINGS["mp4"])
    return path


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    monkeypatch.setattr(device, "_is_usable", {})


def read(path):
    return read_shown(path, lambda n: ALL, SIZE).frames


def test_without_the_device_the_processor_decodes_and_it_is_said_once(film, monkeypatch, caplog):
    expected = read(film)

    def refuse(*arguments, **words):
        time.sleep(0.05)
        raise RuntimeError("no device here")

    monkeypatch.setattr(device, "HWAccel", refuse)
    monkeypatch.setenv(VARIABLE, CUDA)
    with caplog.at_level(logging.WARNING), ThreadPoolExecutor(4) as pool:
        for frames in pool.map(read, [film] * 8):
            np.testing.assert_array_equal(frames, expected)
    (said,) = caplog.messages
    assert "FUSION_DECODE_ON=cuda" in said and said.endswith("; the processor decodes")
    assert decoding_device() == CPU


def test_a_film_that_the_device_does_not_know_is_decoded_by_the_processor(film):
    other = next((name for name in hwdevices_available() if name != CUDA), None)
    if other is None:
        pytest.skip("this build of FFmpeg knows no device that could not decode the film")
    with open_media(film, other) as container:
        (stream,) = Decoder(container, ["video"]).streams
        if stream.codec_context.is_hwaccel:
            pytest.skip(f"{other} decodes the film here")
        assert len(list(Decoder(container, ["video"]).frames())) == 100


def test_another_device_is_an_error(film, monkeypatch):
    monkeypatch.setenv(VARIABLE, "gpu")
    with pytest.raises(ValueError, match="FUSION_DECODE_ON must be cpu or cuda; got 'gpu'"):
        read(film)
    monkeypatch.setenv(VARIABLE, "")
    assert decoding_device() == CPU


@pytest.mark.gpu
def test_nvdec_shows_the_same_frames(tmp_path, monkeypatch, caplog):
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    path = tmp_path / "film.mp4"
    write(path, *CODINGS["mp4"])
    size = Size(60, 80, stretch=True)
    expected = read_shown(path, lambda n: ALL, size).frames.astype(int)
    monkeypatch.setenv(VARIABLE, CUDA)
    found = read_shown(path, lambda n: ALL, size).frames.astype(int)
    assert not caplog.messages
    with open_media(path, CUDA) as container:
        (stream,) = Decoder(container, ["video"]).streams
        assert stream.codec_context.is_hwaccel
    # Colours lie in memory in another order, so FFmpeg scales them by other code.
    assert np.abs(found - expected).max() <= 3
