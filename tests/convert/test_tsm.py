"""From a file as TSM's training saves it to a checkpoint that gives the published numbers."""

import contextlib
import os
import runpy
import sys
import types

import pytest
import torch

from fusion.checkpoint import load_model, read_config
from fusion.convert import convert_checkpoint
from fusion.convert.tsm import detect_tsm
from fusion.tasks import make_task
from tests.conftest import ROOT
from tests.models import test_tsm_golden as golden

KINDS = [*golden.SMALL, "online"]


def published(kind):
    case = golden.CASE["online"] if kind == "online" else golden.CASE["cases"][kind]
    return golden.weights_of(case["state_dict"])


def save(folder, weights):
    """Write a checkpoint of the published training, with an object whose class is gone."""
    module = types.ModuleType("opts")
    module.Options = type("Options", (), {"__module__": "opts"})
    sys.modules["opts"] = module
    content = {"epoch": 50, "arch": "resnet50", "best_prec1": torch.tensor(74.1)}
    content |= {"state_dict": weights, "options": module.Options()}
    torch.save(content, folder / "tsm.pth.tar")
    del sys.modules["opts"]
    return folder / "tsm.pth.tar"


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_a_converted_file_gives_the_published_logits(tmp_path, kind):
    said = convert_checkpoint(save(tmp_path, published(kind)), tmp_path / "out")
    assert "assumed   dropout 0.5 (as in the published training" in said
    assert "text      the model embeds none" in said
    model = load_model(tmp_path / "out").tsm
    if kind == "online":
        assert model.causal
        return
    golden.close(model(golden.number("frames")), golden.number(f"{kind}.eval.logits"))


def test_the_command_names_what_it_found(tmp_path, capsys, monkeypatch):
    path = save(tmp_path, published("tsm_temporal_pool"))
    words = ["convert", str(path), "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", words)
    runpy.run_path(str(ROOT / "tools/convert.py"), run_name="__main__")
    said = capsys.readouterr().out
    assert "found     classifier: network.block bottleneck" in said
    assert "temporal_pool True" in said
    assert read_config(tmp_path / "out")["model"]["num_classes"] == 5


def names_of(case):
    return {n.removeprefix("module."): shape for n, shape in case["state_dict"].items()}


def test_known_networks_have_their_names():
    found = detect_tsm(names_of(golden.CASE["resnet50"])).model
    assert found["network"] == "resnet50" and found["shift"] and found["num_classes"] == 400
    assert detect_tsm(names_of(golden.CASE["online"])).model["network"] == "mobilenetv2_100"


def test_the_offline_mobilenet_is_known_by_its_names():
    names = {}
    for name, shape in names_of(golden.CASE["online"]).items():
        number = name.split(".")[1]
        if number in {"3", "5"} and ".conv.0." in name:
            name = name.replace(".conv.0.", ".conv.0.net.")
        names["new_fc" + name[10:] if name.startswith("classifier") else f"base_model.{name}"] = (
            shape
        )
    found = detect_tsm(names).model
    assert found["shift"] and "causal" not in found and found["num_classes"] == 27


def test_every_second_block_of_a_shallow_network_is_kept():
    names = names_of(golden.CASE["cases"]["tsm_basic"])
    odd = {n.replace("layer1.1.conv1.net.", "layer1.1.conv1."): s for n, s in names.items()}
    assert detect_tsm(odd).model["every_second_block"] is True
    odd = {n.replace("layer1.0.conv1.net.", "layer1.0.conv1."): s for n, s in names.items()}
    with pytest.raises(ValueError, match="its shifted blocks are neither all nor every second one"):
        detect_tsm(odd)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w | {"module.base_model.layer5.0.x": torch.ones(1)}, "'base_model.layer5.0.x'"),
        (lambda w: {k: v for k, v in w.items() if "layer4" not in k}, "no whole ResNet of four"),
        (lambda w: {k: v for k, v in w.items() if "layer2.0.bn1" not in k}, "is absent there"),
    ],
)
def test_an_odd_file_is_refused_in_one_line(tmp_path, change, message):
    path = save(tmp_path, change(published("tsm_basic")))
    with pytest.raises(ValueError, match=message) as error:
        convert_checkpoint(path, tmp_path / "out")
    assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_no_code_in_the_file_runs(tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "it ran"),)

    path = tmp_path / "bomb.pth"
    torch.save({"state_dict": published("tsm_basic"), "bomb": Bomb()}, path)
    with contextlib.suppress(ValueError):
        convert_checkpoint(path, tmp_path / "out")
    assert not (tmp_path / "it ran").exists()


def test_a_converted_model_can_be_evaluated_on_own_films(tmp_path):
    convert_checkpoint(save(tmp_path, published("tsm_basic")), tmp_path / "out")
    task = make_task(read_config(tmp_path / "out"))
    model, loss = task.build()
    task.check(model, loss, None)
    with pytest.raises(ValueError, match="data names no films; set data.folder"):
        task.open_data()
