"""``init=CHECKPOINT``: whose architecture and whose words a run begins with."""

import csv
import json
import shutil

import pytest
import yaml

from fusion.checkpoint import RECIPE, load_checkpoint, read_config
from fusion.commands.initial import read_training_config
from fusion.commands.train import train
from fusion.config import changed_keys
from fusion.data.demo import demo_corpus
from fusion.manifest import MANIFEST
from tests.test_configs import ROOT
from tests.tiny import CONFIG, write_config


@pytest.fixture(scope="module")
def trained(once, tmp_path_factory):
    """A run on the smallest corpus, a copy that may be changed, and its config."""
    folder = tmp_path_factory.mktemp("trained")
    run = shutil.copytree(once.tiny_run(), folder / "run")
    return run, write_config(folder, trainer={"epochs": 1})


@pytest.fixture
def recipe(trained, tmp_path):
    """A recipe whose base has another architecture than the run, and which changes one key."""
    wide = CONFIG["model"] | {"token_dim": 16, "embedding_dim": 16}
    base = CONFIG | {"output": str(tmp_path / "base"), "model": wide}
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(base))
    own = {"base": "base.yaml", "output": str(tmp_path / "run"), "init": str(trained[0])}
    own["model"] = {"modalities": {"audio": {"encoder": {"num_frames": 128}}}}
    own["trainer"] = {"epochs": 1}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(own))
    return tmp_path / "recipe.yaml"


def test_the_architecture_is_that_of_the_checkpoint_and_the_recipe_changes_it(recipe, caplog):
    config = read_training_config(recipe)
    expected = yaml.safe_load(yaml.safe_dump(CONFIG["model"]))
    expected["modalities"]["audio"]["encoder"]["num_frames"] = 128
    assert config["model"] == expected
    assert "changed: modalities.audio.encoder.num_frames=128 (64 there)" in caplog.text
    assert "not taken from the config: embedding_dim=16, token_dim=16" in caplog.text
    train(config)
    assert read_config(recipe.parent / "run")["model"] == expected


def test_a_key_of_the_command_line_is_kept(recipe):
    config = read_training_config(recipe, ["model.dropout=0.5", "model.modalities.audio=null"])
    assert config["model"]["dropout"] == 0.5
    assert config["model"]["modalities"] == CONFIG["model"]["modalities"] | {"audio": None}


def test_weights_that_do_not_fit_name_the_key(recipe, trained):
    config = read_training_config(recipe, ["model.token_dim=32"])
    with pytest.raises(ValueError, match=r"^init: .* is of another architecture: .*8.* there") as e:
        train(config)
    assert "make these as in the checkpoint: model.token_dim=32 (8 there)" in str(e.value)
    assert "embedding_dim" not in str(e.value)


def test_another_kind_of_model_or_encoder_is_refused(trained):
    words = [f"init={trained[0]}"]
    with pytest.raises(ValueError, match="trains the model mcn, but init=.* is of eao; train a"):
        read_training_config("mcn", words)
    with pytest.raises(ValueError, match="text_encoder.name=word2vec_file, but .* with word2vec;"):
        read_training_config(
            trained[1], [*words, "text_encoder.name=word2vec_file", "text_encoder.path=x"]
        )


def test_words_that_the_checkpoint_has_not_learnt_are_named(trained, tmp_path, caplog):
    run, config = trained
    text_encoder, known = load_checkpoint(run)[1:]
    folder = demo_corpus(size=2)
    rows = list(csv.DictReader((folder / "train.csv").open()))
    captions = tmp_path / "train.csv"
    with captions.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        texts = ["zebra", "a quagga"]
        for row, text in zip(rows, texts + [row["text"] for row in rows[2:]], strict=True):
            writer.writerow(row | {"video": str(folder / row["video"]), "text": text})
    own = yaml.safe_load(config.read_text()) | {"output": str(tmp_path / "run")}
    own["data"] = {"name": "videos", "train": str(captions)}
    other = tmp_path / "own.yaml"
    other.write_text(yaml.safe_dump(own))
    train(read_training_config(other, [f"init={run}", "text_encoder.dim=50"]))
    said = [said for said in caplog.messages if "quagga" in said]
    assert len(said) == 1 and said[0].startswith("train: the text encoder does not know 2 of ")
    assert "words (zebra, quagga); 1 of " in said[0]
    assert read_config(tmp_path / "run")["text_encoder"] == known["text_encoder"]
    assert load_checkpoint(tmp_path / "run")[1].index == text_encoder.index


def test_other_features_than_those_of_the_checkpoint_are_named(recipe, trained, caplog):
    file = trained[0] / "best" / RECIPE
    kept = file.read_text()
    (file.parent / MANIFEST).unlink()  # else the change is damage
    train(read_training_config(recipe))
    assert "other features" not in caplog.text
    file.write_text(json.dumps({"features": {"extractor": "others"}}))
    try:
        train(read_training_config(recipe, ["overwrite=true"]))
    finally:
        file.write_text(kept)
    assert (
        "best was trained with features of extractor: others (the data here: descriptors)"
        in caplog.text
    )


def test_a_run_is_resumed_when_its_first_checkpoint_is_gone(recipe, trained):
    words = [f"output={recipe.parent / 'resumed'}", "trainer.epochs=1"]
    train(read_training_config(recipe, words))
    words += ["init=gone", "resume=true"]
    with pytest.raises(ValueError, match="cannot go on with init: .*run -> gone"):
        train(read_training_config(recipe, words))
    moved = trained[0].rename(trained[0].with_name("moved"))
    try:
        train(read_training_config(recipe, [*words[:2], "resume=true"]))
    finally:
        moved.rename(trained[0])


def test_published_fine_tuning_changes_what_it_did(tmp_path):
    frames = ["modalities.audio.encoder.num_frames"]
    norm = [f"modalities.audio.encoder.batchnorm_{key}" for key in ("group", "frozen")]
    assert changed_keys("model", ROOT / "youcook2/finetune.yaml") == frames + norm
    s3d = changed_keys("model", ROOT / "youcook2/finetune_s3d.yaml")
    assert s3d == [*frames, *norm, "modalities.video.dim"]
    assert changed_keys("model", ROOT / "howto100m/eao.yaml") == []
    assert changed_keys("model", ROOT / "mcn.yaml") == []  # a model of another name
    changed = f"base: {ROOT}/eao.yaml\nmodel: {{token_dim: 8}}\n"
    (tmp_path / "changed.yaml").write_text(changed)
    (tmp_path / "other.yaml").write_text("base: changed.yaml\nmodel: {name: mcn}\n")
    assert changed_keys("model", tmp_path / "changed.yaml") == ["token_dim"]
    assert changed_keys("model", tmp_path / "other.yaml") == []


def test_what_is_no_checkpoint_is_told_from_what_is_none_yet(trained, tmp_path):
    words = [f"output={tmp_path / 'out'}"]
    (tmp_path / "weights.pth").touch()
    said = r"is a file, .*fusion convert \S+/weights.pth --out FOLDER$"
    with pytest.raises(ValueError, match=said):
        read_training_config(trained[1], [*words, f"init={tmp_path}/weights.pth"])
    (tmp_path / "config.yaml").touch()
    with pytest.raises(ValueError, match=r"^init: .*has not ended its first epoch; go on with it"):
        read_training_config(trained[1], [*words, f"init={tmp_path}"])
    with pytest.raises(ValueError, match="weights below data_root; add data_root=FOLDER, or init="):
        read_training_config("msrvtt/finetune")
