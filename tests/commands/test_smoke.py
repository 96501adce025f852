"""``--smoke``: every recipe made so small that a trial takes a minute."""

import json

import pytest
import torch

from fusion.builders import check_config
from fusion.commands.smoke import CLIPS, read_smoke_config
from fusion.commands.train import train
from fusion.config import load_config
from fusion.data.datasets.dataset import ClipSet, FirstClips
from fusion.models.batchnorm import batch_granularity
from fusion.recipes import list_recipes
from fusion.tokens import Tokens
from fusion.training.settings import Settings
from tests.test_configs import ROOT, STUDIES, TESTS, what_is_left_to_the_user

LEAST = 1_000_000  # parameters; the widths of the features stay as they are
STEPPED = set()  # models with a loss and a batch that took a step: many recipes share them


def smoke(recipe, *words):
    path = ROOT / f"{recipe}.yaml"
    left = [word for word in what_is_left_to_the_user(path) if "data_root" not in word]
    return read_smoke_config(path, ["data_root=nowhere", *left, *words])


def random_inputs(model, spec, clips):
    """Clips with three tokens of each modality, as wide as the config says."""
    if "modalities" not in spec:  # a classifier of films
        return {"video": frames_of(clips)}
    specs = {name: spec["modalities"][name] or {} for name in model.modalities}
    unknown = {"audio": 40}  # others are left to the data, where a placeholder of 1 stands for them
    widths = {name: s.get("dim") or unknown.get(name, 1) for name, s in specs.items()}
    shapes = {name: (3, width) for name, width in widths.items()}
    shapes |= {"image": (1, 3, 32, 32)} if "image" in shapes else {}
    inputs = {
        name: Tokens.pack([torch.randn(shape) for _ in range(clips)])
        for name, shape in shapes.items()
    }
    if (specs.get("video", {}).get("encoder") or {}).get("name") == "tsm":
        inputs["video"] = frames_of(clips)
    return inputs


def frames_of(clips):
    """Three frames of each clip."""
    return Tokens.pack([torch.randint(256, (3, 3, 32, 32)).to(torch.uint8) for _ in range(clips)])


TRAINED = {n for n in list_recipes() if ROOT / f"{n}.yaml" not in {*STUDIES, *TESTS}}


@pytest.mark.parametrize("recipe", sorted(TRAINED))
def test_every_recipe_has_a_small_model_that_takes_a_step(recipe):
    config = smoke(recipe)
    builders = check_config(config)
    assert (config["max_clips"], config["init"]) == (CLIPS, None)
    assert config["output"] == f"runs/{recipe}-smoke"
    size = Settings(**{"epochs": 1} | config["trainer"]).batch_size
    if (parts := repr((config["model"], config["loss"], size))) in STEPPED:
        return
    torch.manual_seed(0)
    model = builders["model"]()
    loss = builders["loss"](modalities=model.modalities)
    assert sum(p.numel() for p in model.parameters()) < LEAST
    assert size % batch_granularity(model) == 0
    inputs = random_inputs(model, config["model"], size)
    present = {name: torch.ones(size, dtype=torch.bool) for name in inputs}
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    if hasattr(loss, "combinations"):
        value, _ = loss(model.train()(inputs, combinations=loss.combinations), present)
    elif config["task"] == "classification":
        value, _ = loss(model.train()(inputs), present, {"label": torch.zeros(size).long()})
    else:  # answers are chosen
        value, _ = loss(model.train()(inputs), present, {"scores": torch.ones(size, 1)})
    value.backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    assert value.isfinite()
    # With one answer, all that the data have told so far, softmax has nothing to learn.
    learns = hasattr(loss, "combinations") or getattr(loss, "kind", None) != "softmax"
    assert learns == any(not p.equal(before[name]) for name, p in model.named_parameters())
    STEPPED.add(parts)


def test_what_was_typed_is_kept_and_one_line_says_what_changed(caplog, tmp_path):
    config = smoke("eao", "trainer.epochs=3", "model.token_dim=64", f"output={tmp_path}")
    assert (config["trainer"]["epochs"], config["model"]["token_dim"]) == (3, 64)
    assert (config["output"], config["overwrite"]) == (str(tmp_path), False)
    (line,) = caplog.messages
    assert line.startswith("smoke     a trial, no result to report: ")
    assert "trainer.batch_size=16" in line and "\n" not in line
    assert "epochs" not in line and "token_dim" not in line


def test_the_warm_up_that_was_typed_is_the_only_one():
    assert Settings(**smoke("tsm")["trainer"]).warmup_steps == 2
    trainer = Settings(**smoke("tsm", "trainer.warmup_epochs=0.5")["trainer"])
    assert (trainer.warmup_steps, trainer.warmup_epochs) == (0, 0.5)


def test_published_tests_are_counted_by_the_clips_that_are_left():
    assert smoke("msrvtt/finetune")["data"]["protocol"] == "all"
    assert smoke("youcook2/own_features")["data"]["protocol"] == "all"
    assert "protocol" not in smoke("eao")["data"]


class Numbers(ClipSet):
    captions = tuple("abcdef")
    shows = (0, 0, 1, 2, 3, 3)

    def __init__(self, whole=None):
        self.whole = whole

    def __getitem__(self, index):
        return {"id": index}


def test_the_first_clips_keep_captions_and_parts():
    first = FirstClips(Numbers(), 3)
    assert [item["id"] for item in first] == [0, 1, 2]
    assert (list(first.captions), list(first.shows)) == (list("abc"), [0, 0, 1])
    assert len(FirstClips(Numbers(), 100)) == 6
    parts = FirstClips(Numbers([0, 0, 1, 2, 2, 3, 4, 5, 5]), 2)
    assert (len(parts), parts.whole) == (3, [0, 0, 1])


def test_a_trial_trains_evaluates_and_is_the_start_of_another(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["data.films=2", "trainer.batch_size=4", "max_clips=6"]
    train(smoke("eao", *words))
    assert (tmp_path / "runs/eao-smoke/report.html").exists()
    again = smoke("eao", *words, "init=runs/eao-smoke", "output=second")
    assert again["model"] == load_config("runs/eao-smoke/config.yaml")["model"]
    large = smoke("eao", "init=runs/eao-smoke", "model.modalities.audio.encoder.num_frames=512")
    assert large["model"]["modalities"]["audio"]["encoder"]["num_frames"] == 512
    train(again)
    result = json.loads((tmp_path / "second/results.json").read_text())
    assert (result["counted"], result["gallery"]) == (6, 6)
    cost = json.loads((tmp_path / "second/cost.json").read_text())
    assert cost["training_clips"] == 4  # the epoch's second batch would not be full
    assert smoke("eao", *words)["overwrite"]
