"""TSM inside EAO, trained from frames: the same result in chunks and over processes."""

import pytest
import torch

from tests.training import cuts, frame_cuts


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    path = tmp_path_factory.mktemp("frames") / "reference.pt"
    frame_cuts.write_reference(path)
    return path


@pytest.mark.parametrize("lacking", frame_cuts.LACKING)
def test_chunks_and_checkpointing_change_nothing(reference, lacking):
    expected = torch.load(reference)[lacking, "groups"]
    for kind, chunk in (("groups", 0.25), ("checkpointing", None), ("checkpointing", 0.5)):
        found = cuts.difference(frame_cuts.run(lacking, kind, chunk), expected)
        assert found <= cuts.ALLOWED["float64"], (kind, chunk)


def test_with_frozen_statistics_clips_are_independent(reference):
    cell = ("something", "frozen")
    found = cuts.difference(frame_cuts.run(*cell, 0.25), torch.load(reference)[cell])
    assert found <= cuts.ALLOWED["float64"]


def test_the_encoder_learns(reference):
    trained = torch.load(reference)["something", "groups"]
    begun = frame_cuts.make_model("groups", torch.float64).state_dict()
    for name in ("conv1.weight", "layer4.0.conv1.weight", "bn1.running_mean"):
        key = f"encoders.video.tsm.net.timm.{name}"
        assert not torch.allclose(trained[key], begun[key])


@pytest.mark.timeout(600)
def test_two_processes_change_nothing(tool, reference):
    script = "tests/training/frame_cuts.py"
    code, output, errors = tool(script, reference, processes=2, timeout=580)
    assert code == 0, errors
    assert float(output.splitlines()[-1]) <= cuts.ALLOWED["float64"]
