"""Networks by name, and their weights: right, wrong, missing, random."""

import importlib
import pickle
import sys

import pytest
import safetensors.torch
import torch

from fusion.data.media.pictures import Sampling
from fusion.data.untrusted.weight_files import read_weights
from fusion.extract import networks, weights
from fusion.extract.backbone import Source
from fusion.extract.networks import BACKBONES_3D, build_backbone
from fusion.extract.weights import (
    RANDOM,
    load_backbone_weights,
    name_weights,
    random_network,
)

WIDE = (360, 640)  # of a film, in pixels


def package(name):
    try:
        return importlib.import_module(name)
    except (ImportError, RuntimeError) as error:  # RuntimeError: torchvision of another torch
        pytest.skip(f"{name} cannot be imported: {error}")


@pytest.fixture(scope="module")
def timm():
    return package("timm")


@pytest.fixture(scope="module")
def video_models():
    return package("torchvision.models")


@pytest.fixture
def offline(monkeypatch):
    """No server answers, and nothing was downloaded before."""
    monkeypatch.setattr(weights, "reachable", lambda url: False)
    monkeypatch.setattr(weights, "hub_file", lambda repository: None)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: "/nowhere")


def features(backbone, count=2, level=100):
    height, width = backbone.sampling.picture_size(*WIDE[::-1])
    torch.manual_seed(0)
    shape = (count, backbone.sampling.frames, height, width, 3)
    pictures = torch.randint(0, 2 * level, shape, dtype=torch.uint8)
    return backbone.compute(pictures)


class Bomb:
    """Runs code when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


class Small(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3)
        self.norm = torch.nn.BatchNorm2d(4)

    def forward(self, x):
        return self.norm(self.conv(x)).mean((2, 3))


def test_a_convolutional_network_of_timm_sees_the_whole_picture(timm):
    backbone = build_backbone("resnet18", Source("2d", random=True))
    assert backbone.name == "resnet18.a1_in1k"
    assert backbone.sampling == Sampling(1, 224)  # as published: shorter side 224, nothing cut off
    found = features(backbone)
    assert found.shape == (2, backbone.dim) == (2, 512)
    assert found.isfinite().all() and found.std() > 0.01
    # The network's own normalisation, of values from 0 to 255
    white = torch.full((1, 1, 224, 224, 3), 255, dtype=torch.uint8)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        expected = backbone.network(((1 - mean) / std).view(1, 3, 1, 1).expand(1, 3, 224, 224))
    torch.testing.assert_close(backbone.compute(white), expected)


def test_a_network_of_fixed_size_sees_the_middle_as_its_config_says(timm):
    backbone = build_backbone("vit_tiny_patch16_224", Source("2d", random=True))
    assert backbone.sampling == Sampling(1, 248, crop=224, interpolation="bicubic")
    assert features(backbone, 1).shape == (1, backbone.dim) == (1, 192)


def test_weights_of_timm_are_read_from_a_file_without_the_classifier(timm, tmp_path):
    torch.manual_seed(1)
    model = timm.create_model("resnet10t", pretrained=False)
    safetensors.torch.save_file(model.state_dict(), tmp_path / "weights.safetensors")
    torch.save({"state_dict": model.state_dict()}, tmp_path / "weights.pth")
    found = [
        build_backbone("resnet10t", Source("2d", tmp_path / f"weights.{ending}"))
        for ending in ("safetensors", "pth")
    ]
    assert found[0].weights == found[1].weights == name_weights(found[0].network) != RANDOM
    torch.testing.assert_close(found[0].network.conv1[0].weight, model.conv1[0].weight)


def test_weights_that_were_downloaded_before_are_used_without_a_server(timm, tmp_path, monkeypatch):
    monkeypatch.setattr(package("huggingface_hub.constants"), "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(weights, "reachable", lambda url: False)

    def ask(*arguments, **options):
        raise AssertionError("the hub asks its server")

    monkeypatch.setattr(package("huggingface_hub.file_download"), "get_hf_file_metadata", ask)
    model = timm.create_model("resnet10t", pretrained=False)
    cached = tmp_path / "models--timm--resnet10t.c3_in1k"
    (cached / "snapshots/1").mkdir(parents=True)
    (cached / "refs").mkdir()
    (cached / "refs/main").write_text("1")
    safetensors.torch.save_file(model.state_dict(), cached / "snapshots/1/model.safetensors")
    backbone = build_backbone("resnet10t", Source("2d"))
    torch.testing.assert_close(
        backbone.network.layer1[0].conv1.weight, model.layer1[0].conv1.weight
    )
    assert backbone.weights != RANDOM


@pytest.mark.parametrize(
    ("mode", "way", "expected"),
    [
        ("center", "bilinear", Sampling(1, 248, 224, interpolation="bilinear")),
        ("squash", "bicubic", Sampling(1, (248, 248), 224)),
        ("center", "random", Sampling(1, 248, 224)),
    ],
)
def test_pictures_of_a_fixed_size_are_made_as_the_config_says(mode, way, expected):
    config = {"crop_pct": 0.9, "crop_mode": mode, "interpolation": way}
    assert networks._fixed_size(224, config) == expected


def test_weights_of_another_network_are_refused(timm, tmp_path):
    torch.save(Small().state_dict(), tmp_path / "small.pth")
    with pytest.raises(ValueError, match=r"small.pth is not of resnet18: bn1.bias is absent there"):
        build_backbone("resnet18", Source("2d", tmp_path / "small.pth"))


@pytest.mark.slow
def test_a_video_model_of_torchvision_is_seen_as_it_was_tested(video_models, tmp_path):
    model = video_models.get_model("r3d_18", weights=None)
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    backbone = build_backbone("r3d_18", Source("3d", tmp_path / "weights.pth"))
    expected = Sampling(15, (128, 171), 112, 16, 15, "bilinear")
    assert backbone.sampling == expected
    assert backbone.sampling.per_second == 1
    assert features(backbone, 1).shape == (1, backbone.dim) == (1, 512)


@pytest.mark.slow
@pytest.mark.parametrize("name", BACKBONES_3D)
def test_every_network_for_motion_gives_features(video_models, name):
    backbone = build_backbone(name, Source("3d", random=True))
    found = features(backbone, 1)
    assert found.shape == (1, backbone.dim)
    assert found.abs().max() < 60_000 and found.std() > 1e-3  # of use in float16
    assert backbone.weights == RANDOM


def test_missing_weights_are_one_line_with_a_way_out(timm, video_models, offline):
    sources = {
        "resnet18": "https://huggingface.co/timm/resnet18.a1_in1k",
        "resnext101": "https://www.rocq.inria.fr/cluster-willow/amiech/howto100m/models/resnext101",
        "s3d": "https://www.rocq.inria.fr/cluster-willow/amiech/howto100m/s3d_howto100m.pth",
        "r3d_18": "https://download.pytorch.org/models/r3d_18-b3b3357e.pth",
    }
    for name, address in sources.items():
        field = "2d" if name == "resnet18" else "3d"
        with pytest.raises(ValueError) as error:
            build_backbone(name, Source(field))
        line = str(error.value)
        assert line.startswith(f"{name} needs its weights: ") and "\n" not in line
        assert address in line
        assert f"--weights-{field} FILE" in line and "--random-weights" in line


def test_unknown_names_are_refused_with_those_that_are_known(timm):
    with pytest.raises(ValueError, match="resnet81 is no model of timm; did you mean resnet18"):
        build_backbone("resnet81", Source("2d"))
    with pytest.raises(ValueError, match="unknown resnet; choose from resnext101, s3d, r3d_18"):
        build_backbone("resnet", Source("3d"))
    assert build_backbone("none", Source("2d")) is None


def test_a_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError, match="timm cannot be imported .*; pip install timm"):
        build_backbone("resnet18", Source("2d"))


def test_random_weights_are_always_the_same_and_leave_other_randomness_alone():
    example = weights.blots((1, 3, 16, 16), (127.0,) * 3, (64.0,) * 3)
    torch.manual_seed(5)
    first = random_network(Small, example)
    drawn = torch.rand(1)
    second = random_network(Small, example)
    torch.manual_seed(5)
    assert torch.rand(1) == drawn
    assert name_weights(first) == name_weights(second)
    assert not first.training and first.norm.momentum == 0.1
    assert first.norm.running_var.std() > 0  # of the example


def test_the_name_of_weights_follows_their_values_and_not_their_file(tmp_path):
    model, other = Small(), Small()
    other.load_state_dict(model.state_dict())
    assert name_weights(model) == name_weights(other)
    with torch.no_grad():
        other.conv.weight[0, 0, 0, 0] += 1e-6
    assert name_weights(model) != name_weights(other)


def test_files_that_are_no_weights_are_refused_and_not_run(tmp_path):
    bomb = Bomb(tmp_path / "exploded")
    (tmp_path / "code.pth").write_bytes(pickle.dumps({"weight": bomb}, protocol=2))
    torch.save({"state_dict": {"weight": "words"}}, tmp_path / "words.pth")
    (tmp_path / "noise.safetensors").write_bytes(b"noise" * 99)
    for name, message in {
        "code.pth": " is no file of weights .it asks for .*open, which is refused",
        "words.pth": ": weight is no weight but of str",
        "noise.safetensors": " is no file of weights",
        "none.pth": " cannot be read",
    }.items():
        with pytest.raises(ValueError, match=rf"{name}{message}[^\n]*$"):
            read_weights(tmp_path / name)
    assert not (tmp_path / "exploded").exists()


def test_weights_that_do_not_fit_are_named(tmp_path):
    model = Small()
    good = model.state_dict()
    cases = {
        "conv.bias is absent there and 4 in the model": {
            k: v for k, v in good.items() if k != "conv.bias"
        },
        "extra is 1 there and absent in the model": good | {"extra": torch.zeros(1)},
        "conv.bias is 5 there and 4 in the model": good | {"conv.bias": torch.zeros(5)},
    }
    for message, content in cases.items():
        torch.save(content, tmp_path / "weights.pth")
        with pytest.raises(ValueError, match=f"weights.pth is not of small: {message}"):
            load_backbone_weights(model, "small", tmp_path / "weights.pth", ["head"])
    wrapped = {f"module.{k}": v for k, v in good.items()} | {"module.head.weight": torch.ones(1)}
    torch.save(wrapped, tmp_path / "weights.pth")
    load_backbone_weights(Small(), "small", tmp_path / "weights.pth", ["head"])


def test_a_server_that_does_not_answer_is_noticed_at_once(monkeypatch):
    monkeypatch.setattr(weights.urllib.request, "getproxies", dict)
    assert not weights.reachable("http://127.0.0.1:9/weights.pth")
    monkeypatch.setattr(weights.urllib.request, "getproxies", lambda: {"https": "proxy"})
    assert weights.reachable("https://127.0.0.1:9/weights.pth")
