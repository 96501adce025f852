"""What a run costs, against what can be reckoned by hand."""

import psutil
import pytest
import torch
from accelerate import Accelerator
from torch import nn

from fusion.commands import cost
from fusion.commands.cost import FEW, count_flop, describe_cost, peak_memory


class Projection(nn.Module):
    """A linear layer over all tokens: 2 x 5 x 3 operations for each, and 18 parameters."""

    def __init__(self):
        super().__init__()
        self.project = nn.Linear(5, 3)

    def forward(self, inputs):
        assert not self.training and not torch.is_grad_enabled()
        return {"v": self.project(inputs["video"].values)}


def clips(count):
    """Clips of 1, 2, 3, … tokens."""
    return [{"id": str(i), "video": torch.ones(i + 1, 5)} for i in range(count)]


@pytest.mark.parametrize(("count", "tokens"), [(4, 10 / 4), (FEW + 9, (FEW + 1) / 2)])
def test_arithmetic_is_that_of_the_mean_of_the_first_few_clips(count, tokens):
    assert count_flop(Projection(), clips(count)) == 2 * 5 * 3 * tokens


def test_a_cost_has_all_that_decides_it():
    found = describe_cost(Projection(), clips(4), None, peak_bytes=7, seen=640, processes=2)
    assert found.pop("device").removeprefix("cpu: ").strip()
    assert found == {
        "format": 1,
        "parameters": 18,
        "gflop_per_clip": 75e-9,
        "training_seconds": None,
        "peak_memory_bytes": 7,
        "training_clips": 640,
        "processes": 2,
        "threads": torch.get_num_threads(),
    }


def test_processors_are_called_by_their_names(monkeypatch, tmp_path):
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Xenon: 7\nmodel name\t: no\n")
    monkeypatch.setattr(cost, "Path", lambda _: tmp_path / "cpuinfo")
    described = describe_cost(Projection(), clips(1), 60.0, 7, 640, 1)
    assert (described["device"], described["training_seconds"]) == ("cpu: Xenon: 7", 60.0)
    monkeypatch.setattr(cost, "Path", lambda _: tmp_path / "nowhere")  # not Linux
    assert len(describe_cost(Projection(), clips(1), None, 7, 640, 1)["device"]) > len("cpu: ")


def test_the_peak_is_in_bytes_and_the_highest_of_all_processes(monkeypatch):
    accelerator = Accelerator(cpu=True)
    own = peak_memory(accelerator)
    now = psutil.Process().memory_info().rss
    assert now <= own + 2**20 and own < 100 * now
    monkeypatch.setattr(cost, "gather_object", lambda mine: [*mine, 3 * own])
    assert peak_memory(accelerator) == 3 * own
