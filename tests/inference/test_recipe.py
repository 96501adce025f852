"""A checkpoint carries the recipe of its features, and other features are refused."""

import json
import shutil
import subprocess
import sys

import pytest
import torch

import fusion
from fusion.checkpoint import read_recipe
from fusion.commands.evaluate import evaluate
from fusion.inference import loading

DESCRIPTORS = {"extractor": "descriptors", "version": "1", "log_mel": 1}


@pytest.fixture
def changed(run, tmp_path):
    """Copy the run with another recipe (None: without)."""

    def copy(recipe):
        folder = tmp_path / "changed"
        shutil.copytree(run / "best", folder)
        for file in ("recipe.json", "manifest.json"):  # older versions wrote neither
            (folder / file).unlink()
        if recipe is not None:
            (folder / "recipe.json").write_text(json.dumps(recipe))
        return folder

    return copy


def test_a_run_says_how_its_features_were_made(run):
    recipe = read_recipe(run)
    assert recipe["features"] == DESCRIPTORS
    assert recipe["max_video_tokens"] == 12


def test_an_older_checkpoint_gets_the_recipe_of_its_config(run, model, changed):
    folder = changed(None)
    assert loading.find_recipe(folder, model.config) == read_recipe(run)


def test_features_of_another_version_are_refused(run, changed, test_clips):
    recipe = read_recipe(run)
    folder = changed(recipe | {"features": DESCRIPTORS | {"version": "0"}})
    film = test_clips.folder / test_clips.captions[0].video
    with pytest.raises(ValueError, match="features of version: 0 .this version of fusion: 1."):
        fusion.load(folder).encode(film)
    with pytest.raises(ValueError, match="features of version: 0 .the data here: 1.; extract"):
        evaluate(folder, None, None)


def test_a_model_of_published_features_embeds_tokens_alone(model, test_clips):
    unknown = fusion.Model(model.network, model.text_encoder, model.config, None, "cpu")
    film = test_clips.folder / test_clips.captions[0].video
    with pytest.raises(ValueError, match="does not say how the features of its videos were made"):
        unknown.encode(film)
    video = test_clips[0]["video"]
    torch.testing.assert_close(unknown.encode({"video": video}), model.encode({"video": video}))


def test_importing_fusion_imports_no_torch():
    program = "import fusion, sys; fusion.__version__; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
