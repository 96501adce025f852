"""A model is saved whole, and alone: of an earlier one nothing remains."""

import shutil
import types

import huggingface_hub
import pytest

import fusion
from fusion.checkpoint import WEIGHTS
from fusion.inference import saving
from fusion.inference.card import read_facts, without_paths
from fusion.manifest import MANIFEST
from tests.inference.compare import equal

pytestmark = pytest.mark.filterwarnings("ignore:.*longer than the model takes:UserWarning")


def names(folder):
    return {file.name for file in folder.iterdir()}


def test_a_saved_model_is_the_same(model, test_clips, tmp_path):
    model.save_pretrained(tmp_path / "mine")
    again = fusion.load(tmp_path / "mine")
    for given in ("a red star", test_clips.folder / test_clips.captions[0].video):
        equal(again.encode(given), model.encode(given))
    card = (tmp_path / "mine" / "README.md").read_text()
    assert 'fusion.load("mine")' in card and "t->va" in card and "Protocol: all" in card
    assert {file.suffix for file in (tmp_path / "mine").iterdir()} <= {
        *(".md", ".json", ".yaml", ".txt", ".safetensors")
    }


def test_nothing_of_an_earlier_model_remains(model, tmp_path):
    model.save_pretrained(tmp_path / "mine")
    (tmp_path / "mine/.git").mkdir()
    assert {"recipe.json", "results.json", "vocabulary.txt"} < names(tmp_path / "mine")
    bare = fusion.Model(model.network, None, model.config, None, "cpu")
    bare.save_pretrained(tmp_path / "mine")
    assert names(tmp_path / "mine") == {"config.yaml", WEIGHTS, MANIFEST, "README.md", ".git"}
    assert "not evaluated" in (tmp_path / "mine/README.md").read_text()


def test_a_save_that_fails_changes_nothing(model, tmp_path, monkeypatch):
    model.save_pretrained(tmp_path / "mine")
    before = {f.name: f.read_bytes() for f in (tmp_path / "mine").iterdir()}

    def fail(*_):
        raise OSError("no space")

    monkeypatch.setattr(saving, "write_card", fail)
    for name in ("mine", "new"):
        with pytest.raises(OSError, match="no space"):
            model.save_pretrained(tmp_path / name)
    assert {f.name: f.read_bytes() for f in (tmp_path / "mine").iterdir()} == before
    assert names(tmp_path) == {"mine"}


def test_results_of_a_run_are_of_its_best_checkpoint(run):
    assert {*read_facts(run / "best")} == {"results.json", "cost.json"}
    assert not read_facts(run / "last")


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub that keeps what is published in a folder, and the options of each call."""
    calls = {}

    class Api:
        def __init__(self, token=None):
            calls["token"] = token

        def create_repo(self, repo_id, private, exist_ok):
            calls["private"] = private
            return types.SimpleNamespace(repo_id=f"me/{repo_id.removeprefix('me/')}")

        def upload_folder(self, repo_id, folder_path, **options):
            calls["upload"] = options
            shutil.copytree(folder_path, tmp_path / repo_id)
            return "address"

    def download(repo_id, **options):
        calls["download"] = options
        return str(tmp_path / repo_id)

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.chdir(tmp_path.parent)
    return calls


def test_a_published_model_is_loaded_by_its_name(model, run, hub, tmp_path):
    data = model.config["data"] | {"folder": str(run / "films")}
    parts = (model.network, model.text_encoder, model.config | {"data": data}, model.recipe)
    published = fusion.Model(*parts, "cpu")
    assert published.push_to_hub("mine", private=True, token="secret", branch="next") == "address"
    assert (hub["token"], hub["private"], hub["upload"]["revision"]) == ("secret", True, "next")
    assert "recipe.json" in hub["upload"]["delete_patterns"]
    card = (tmp_path / "me/mine/README.md").read_text()
    assert 'fusion.load("me/mine")' in card and "folder: films" in card
    for file in ("README.md", "config.yaml", "recipe.json"):
        assert str(run.parent) not in (tmp_path / "me/mine" / file).read_text()
    options = {"revision": "next", "token": "secret", "cache_dir": tmp_path}
    again = fusion.Model.from_pretrained("me/mine", device="cpu", **options)
    assert options.items() <= hub["download"].items()
    equal(again.encode("a red star"), model.encode("a red star"))
    model.save_pretrained(tmp_path / "saved", push_to_hub=True, repo_id="me/other")
    assert 'fusion.load("me/other")' in (tmp_path / "me/other/README.md").read_text()
    with pytest.raises(TypeError, match="revison"):
        fusion.Model.from_pretrained("me/mine", revison="next")


def test_absolute_paths_lose_their_folders():
    given = {"a": ["/x/films", "films/test", "hf:/x/vit", "hf:google/vit", 3], "b": "~/words.bin"}
    assert without_paths(given) == {
        "a": ["films", "films/test", "hf:vit", "hf:google/vit", 3],
        "b": "words.bin",
    }
