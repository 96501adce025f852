"""ResNeXt-101 and S3D against numbers of the published code, and files that are not theirs.

A golden case holds the names and shapes of the published weights and what the published code puts
out for weights and an input that follow a rule.
"""

import json
import os
import pickle

import numpy as np
import pytest
import torch

from fusion.models.video.s3d import S3D
from fusion.models.video.weight_names import RESNEXT101, S3D_HOWTO100M
from tests.golden_cases import GOLDEN, weight

LOADERS = {"resnext101": RESNEXT101.load, "s3d": S3D_HOWTO100M.load}
EVERY = pytest.mark.parametrize("name", LOADERS)


def read_case(name):
    return json.loads((GOLDEN / f"{name}.json").read_text())


def save(folder, content, **options):
    torch.save(content, folder / "weights.pth", **options)
    return folder / "weights.pth"


def random_weights(name):
    """Weights by the golden set's rule, S3D's running variances smaller.

    At 1 what S3D sees would shrink layer by layer until its biases alone made the output.
    """
    case = read_case(name)
    names = case["state_dict"].items()
    weights = {k: torch.as_tensor(weight(k, shape, case["seed"])) for k, shape in names}
    scale = case["running_var_scale"]
    return {k: v * scale if k.endswith("running_var") else v for k, v in weights.items()}


def flat_weights(name, value=0.5):
    """Every weight a single number, spread out: a file of a few kilobytes."""
    names = read_case(name)["state_dict"].items()
    return {k: torch.tensor(value).expand(shape) for k, shape in names if "tracked" not in k}


def read_input(case):
    generator = np.random.default_rng(case["input"]["seed"])
    return torch.from_numpy(generator.random(case["input"]["shape"], np.float32))


def line_of(name, path):
    """Read a file that is refused; give the only line that is said about it."""
    with pytest.raises(ValueError) as error:
        LOADERS[name](path)
    line = str(error.value)
    assert "\n" not in line
    assert line.startswith(str(path))
    assert "reads the file that is published at https://" in line
    return line


@EVERY
@torch.no_grad()
def test_features_equal_those_of_the_published_code(tmp_path, name):
    case = read_case(name)
    model = LOADERS[name](save(tmp_path, random_weights(name)))
    features = model(read_input(case))
    assert features.shape == (2, model.out_dim)
    outputs = {"features": features}
    if name == "s3d":
        outputs["embedding"] = model.project(features)
    for key, ours in outputs.items():
        published = torch.tensor(case[key])  # the first 32 numbers of each clip
        scale = published.abs().max().item()
        torch.testing.assert_close(ours[:, :32], published, rtol=0, atol=1e-5 * scale)


@EVERY
def test_a_loaded_model_is_ready_for_use(tmp_path, name):
    model = LOADERS[name](save(tmp_path, flat_weights(name)))
    assert not any(module.training for module in model.modules())
    for key, tensor in model.state_dict().items():
        assert tensor.is_contiguous() and not tensor.is_meta  # not a number spread out any more
        assert (tensor == (0 if key.endswith("tracked") else 0.5)).all(), key


@EVERY
@pytest.mark.parametrize("zipped", [True, False])
def test_all_that_people_wrap_around_weights_is_read(tmp_path, name, zipped):
    weights = {f"module.{k}": v.half() for k, v in flat_weights(name).items()}
    content = {"epoch": 3, "arch": name, "state_dict": weights}
    path = save(tmp_path, content, _use_new_zipfile_serialization=zipped)
    assert {v.dtype for v in LOADERS[name](path).parameters()} == {torch.float32}


@EVERY
def test_only_what_the_features_do_not_need_is_dropped(tmp_path, name):
    dropped = {"resnext101": "fc.", "s3d": "text_module."}
    kept = {k: v for k, v in flat_weights(name).items() if not k.startswith(dropped[name])}
    model = LOADERS[name](save(tmp_path, kept))
    assert len(kept) == sum("tracked" not in k for k in model.state_dict())


BROKEN = {
    "resnext101": ("layer3.22.bn2.bias", (512,), "512"),
    "s3d": ("mixed_4d.conv_b2_b.conv2.weight", (64, 64, 3, 1, 1), "64x64x3x1x1"),
}


@EVERY
def test_a_missing_weight_is_named(tmp_path, name):
    weights = flat_weights(name)
    key, _, shape = BROKEN[name]
    del weights[key]
    assert f": {key} is absent there and {shape} in the model;" in line_of(
        name, save(tmp_path, weights)
    )


@EVERY
def test_missing_weights_are_counted(tmp_path, name):
    weights = {k: v for k, v in flat_weights(name).items() if k.startswith("conv1.")}
    assert " more differ); " in line_of(name, save(tmp_path, weights))


@EVERY
@pytest.mark.parametrize("unknown", ["visual.proj", "module.conv1.weight"])
def test_an_unknown_weight_is_named(tmp_path, name, unknown):
    weights = flat_weights(name) | {unknown: torch.ones(2, 3)}
    assert f"{unknown} is 2x3 there and absent in the model;" in line_of(
        name, save(tmp_path, weights)
    )


@EVERY
def test_a_weight_of_another_shape_is_named_with_both_shapes(tmp_path, name):
    key, _, shape = BROKEN[name]
    weights = flat_weights(name) | {key: torch.ones(7, 5)}
    line = line_of(name, save(tmp_path, weights))
    assert f"{key} is 7x5 there and {shape} in the model;" in line


@EVERY
def test_weights_in_whole_numbers_are_refused(tmp_path, name):
    key, size, shape = BROKEN[name]
    weights = flat_weights(name) | {key: torch.tensor(1, dtype=torch.int8).expand(size)}
    line = line_of(name, save(tmp_path, weights))
    assert f"{key} is {shape} (torch.int8) there and {shape} in the model;" in line


def test_each_loader_refuses_the_other_file(tmp_path):
    line = line_of("s3d", save(tmp_path, flat_weights("resnext101")))
    assert "bn1.bias is 64 there and absent in the model" in line
    line = line_of("resnext101", save(tmp_path, flat_weights("s3d")))
    assert "bn1.bias is absent there and 64 in the model" in line


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([1, 2], "it holds an object of list, not weights by name"),
        ({}, "it holds an empty dict, not weights by name"),
        ({"state_dict": None}, "state_dict is no weight but of NoneType"),
        ({"epoch": 3}, "epoch is no weight but of int"),
        ({0: torch.ones(1)}, "0 is no weight but of Tensor"),
    ],
)
def test_a_file_of_other_things_is_refused(tmp_path, content, said):
    assert said in line_of("s3d", save(tmp_path, content))


@pytest.mark.parametrize("content", [b"", b"not found\n", b"PK\3\4 and then nothing", b"\x80\2"])
def test_a_file_that_holds_no_weights_is_refused(tmp_path, content):
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    assert "is no file of weights (" in line_of("resnext101", path)


def test_a_path_without_a_file_is_refused(tmp_path):
    assert "cannot be read (No such file" in line_of("s3d", tmp_path / "none.pth")
    assert "cannot be read (" in line_of("s3d", tmp_path)


class Bomb:
    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("bare", [True, False])
def test_code_in_a_file_is_refused_and_not_run(tmp_path, bare):
    weights = flat_weights("s3d") | {"fc.bias": Bomb(tmp_path / "executed")}
    path = save(tmp_path, weights)
    if bare:
        path.write_bytes(pickle.dumps(Bomb(tmp_path / "executed"), protocol=2))
    line = line_of("s3d", path)
    assert f"it asks for {os.name}.mkdir, which is refused as it could run code" in line
    assert not (tmp_path / "executed").exists()


def test_s3d_needs_even_sizes():
    model = S3D()
    for shape in [(1, 3, 3, 8, 8), (1, 3, 4, 9, 8), (1, 3, 4, 8, 9)]:
        with pytest.raises(ValueError, match=r"even number of frames, rows, columns; got \dx\dx\d"):
            model.embed(torch.zeros(shape))


@torch.no_grad()
def test_an_embedding_is_the_projected_feature():
    model, video = S3D().eval(), torch.rand(1, 3, 2, 8, 8)
    embedding = model.embed(video)
    assert embedding.shape == (1, model.embedding_dim)
    torch.testing.assert_close(embedding, model.project(model(video)), rtol=0, atol=0)
