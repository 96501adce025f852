"""Weights beside other things that a training saved."""

import argparse
import datetime
import enum
from collections import defaultdict

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from fusion.data.untrusted.weight_files import read_weights


class Options:
    """Options of somebody's training."""

    def __init__(self):
        self.rate, self.how = 0.1, print


class Mode(enum.Enum):
    """How they trained."""

    FAST = 1


class Bomb:
    """Opens a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


NETWORK = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
BESIDE = {
    "a namespace": lambda: argparse.Namespace(rate=1e-3, arch="resnet"),
    "a config": lambda: OmegaConf.create({"a": {"b": [1, 2]}}),
    "an object": Options,
    "an enum, a set, a slice": lambda: [Mode.FAST, {1, 2}, slice(1, 2), defaultdict(list, a=[1])],
    "random states": lambda: [torch.get_rng_state(), np.random.get_state()],
    "times and types": lambda: [datetime.datetime(2020, 1, 1), torch.float32, torch.device("cpu")],
    "an optimizer": lambda: torch.optim.Adam(NETWORK.parameters()).state_dict(),
}


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("what", BESIDE)
def test_weights_are_read_past_other_objects(tmp_path, what, zipped, first):
    state, other = NETWORK.state_dict(), BESIDE[what]()
    content = {"args": other, "state_dict": state} if first else {"state_dict": state, "x": other}
    torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    found = read_weights(tmp_path / "w.pth")
    assert found.keys() == state.keys()
    for name, weight in found.items():
        assert weight.dtype == state[name].dtype and torch.equal(weight, state[name])


@pytest.mark.parametrize("zipped", [True, False])
def test_code_beside_weights_is_not_run(tmp_path, zipped):
    content = {"state_dict": NETWORK.state_dict(), "x": Bomb(tmp_path / "exploded")}
    torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    assert len(read_weights(tmp_path / "w.pth")) == len(NETWORK.state_dict())
    assert not (tmp_path / "exploded").exists()


def test_a_changed_tensor_does_not_change_its_file(tmp_path):
    torch.save(NETWORK.state_dict(), tmp_path / "w.pth")
    before = (tmp_path / "w.pth").read_bytes()
    read_weights(tmp_path / "w.pth")["0.weight"].zero_()
    assert (tmp_path / "w.pth").read_bytes() == before
