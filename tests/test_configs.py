from pathlib import Path

import pytest
import torch
import yaml

from fusion.builders import check_config
from fusion.config import flatten, load_config
from fusion.models.batchnorm import batch_granularity
from fusion.recipes import read_layers
from fusion.study.plan import overrides_of, read_plan
from fusion.tasks import make_task
from fusion.training.memory import ChunkSize
from fusion.training.sampler import check_division

ROOT = Path(__file__).parents[1] / "configs"


def is_test(path):
    """Tell whether a config, or what it is based on, has no model of its own."""
    layers = read_layers(path)
    return "task" in layers[0] and not any("model" in layer for layer in layers)


STUDIES = [ROOT / "study.yaml", *(ROOT / "studies").glob("*.yaml")]  # say what is trained
TESTS = sorted(p for p in ROOT.rglob("*.yaml") if is_test(p))  # of trained models
CONFIGS = sorted({*ROOT.rglob("*.yaml")} - {*STUDIES, *TESTS})
BASELINES = [p for p in CONFIGS if p.stem.startswith(("avlnet", "mcn", "spoken_digits_"))]
ALONE = {"model.combinations": ["t", "v", "a"], "trainer.best": "t->v+a R@1"}
ALONE |= dict.fromkeys(("loss.terms.t|va", "loss.terms.v|ta", "loss.terms.a|tv"))
ABLATIONS = {  # what each changes of its base; None: a term without a weight
    "cls_token": {"model.cls_token": True, "model.shared_head": True},
    "equal_weights": {
        f"loss.terms.{term}": 1 for term in ("t|v", "t|a", "v|a", "t|va", "v|ta", "a|tv")
    },
    "no_pairs": ALONE,
    "no_transformer": ALONE | {"model.num_blocks": 0},
    "no_final_norm": {"model.final_norm": False},
    "positional": {"model.positional": True}
    | {f"model.modalities.{name}.max_tokens": 72 for name in ("text", "video", "audio")},
    "shared_head": {"model.shared_head": True},
    "three_terms": dict.fromkeys(("loss.terms.v|a", "loss.terms.v|ta", "loss.terms.a|tv")),
    "transformer_per_modality": ALONE | {"model.transformer_per_modality": True},
    "two_blocks": {"model.num_blocks": 2},
}
PRETRAINING = [  # clips of a batch; GPUs, by AVLnet's training.md, MCN's scripts and EAO's configs
    ("avlnet", 128 * 32, 2),
    ("avlnet_text", 256 * 32, 4),
    ("avlnet_text_fused", 64 * 32, 2),
    ("mcn", 128 * 32, 4),
    ("eao", 224 * 10, 4),
    ("avlnet_eao", 224 * 10, 4),
]
FINETUNING = {  # epochs, learning rate, schedule and width, by AVLnet's README
    "avlnet": dict.fromkeys(("msrvtt", "youcook2"), (5, 1e-4, "constant", 4096)),
    "avlnet_text": {
        "msrvtt": (15, 1e-4, "constant", 6144),
        "youcook2": (3, 1e-4, "exponential", 6144),
    },
    "avlnet_text_fused": dict.fromkeys(("msrvtt", "youcook2"), (5, 1e-5, "constant", 4096)),
}


COUNTS = (1, 2, 4, 8, 16, 64)  # of processes
PUBLISHED = [p for p in CONFIGS if p.parent.name == "published_batchnorm"]


def what_is_left_to_the_user(path):
    marked = yaml.safe_load(path.read_text())
    return [f"{key}=x" for key, value in flatten(marked).items() if value == "???"]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_config_builds_its_model_and_loss(path):
    builders = check_config(load_config(path, what_is_left_to_the_user(path)))
    with torch.device("meta"):
        model = builders["model"]()
    loss = builders["loss"](modalities=model.modalities)
    embedded = getattr(model, "combinations", ())  # a model that answers questions has none
    assert {*getattr(loss, "combinations", ())} <= {*embedded}


def granularity(path):
    """The batch of a recipe, and of how many clips every chunk must be a multiple."""
    config = load_config(path, what_is_left_to_the_user(path))
    with torch.device("meta"):
        model = check_config(config)["model"]()
    return config["trainer"]["batch_size"], batch_granularity(model.train())


@pytest.mark.parametrize(
    "path", sorted({*CONFIGS} - {*PUBLISHED}), ids=lambda path: str(path.relative_to(ROOT))
)
def test_every_recipe_is_shared_out_to_any_number_of_processes(path):
    batch, cut = granularity(path)
    assert cut in (1, 4, 8, 32, 35)  # the smallest chunk
    if path.stem == "own_videos":  # which is fitted to the clips and to the processes
        return
    for processes in COUNTS:
        refused = batch % (processes * cut)
        if not refused:
            check_division(batch, processes, cut)
            chunk = ChunkSize(batch // processes, cut)
            while chunk.halve():
                pass
            assert chunk.size == cut
            continue
        assert processes > (4 if batch == 16 else 8)  # they run on a whole machine
        assert batch <= 64 or batch == 1120  # of a few minutes, or two blocks
        with pytest.raises(ValueError, match=r"set trainer.batch_size=\d+, the nearest that can"):
            check_division(batch, processes, cut)


def test_no_recipe_was_left_out_of_the_table_of_processes():
    assert len(CONFIGS) == 80 and len(PUBLISHED) == 6


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.stem)
def test_published_groups_run_on_as_many_gpus_as_were_published(path):
    batch, cut = granularity(path)
    (gpus,) = (gpus for name, _, gpus in PRETRAINING if name == path.stem)
    check_division(batch, gpus, cut)
    with pytest.raises(ValueError, match=f"or start {gpus} processes"):
        check_division(batch, 2 * gpus, cut)


@pytest.mark.parametrize("path", TESTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_test_of_a_trained_model_makes_its_task(path):
    trained = load_config(ROOT / "eao.yaml")
    config = load_config(path, ["data_root=x"], trained)
    assert config["task"] in ("localisation", "whole_films", "zero_shot_answering")
    assert make_task(config).test_settings.batch_size == 256
    assert config["model"] == trained["model"]


@pytest.mark.parametrize(("name", "batch", "gpus"), PRETRAINING)
def test_batchnorm_sees_what_a_gpu_of_the_published_training_saw(name, batch, gpus):
    path = ROOT / f"howto100m/published_batchnorm/{name}.yaml"
    config = load_config(path, ["data_root=x"])
    with torch.device("meta"):
        model = check_config(config)["model"]()
    assert config["trainer"]["batch_size"] == batch
    assert batch_granularity(model) == batch // gpus
    plain = load_config(ROOT / f"howto100m/{name}.yaml", ["data_root=x"])
    changed = {k for k, v in flatten(config).items() if flatten(plain)[k] != v}
    assert changed == {"output", "model.modalities.audio.encoder.batchnorm_group"}


@pytest.mark.parametrize("data", ["msrvtt", "youcook2"])
@pytest.mark.parametrize("name", FINETUNING)
def test_avlnet_is_fine_tuned_as_published(name, data):
    config = load_config(ROOT / f"{data}/{name}.yaml", ["data_root=x"])
    epochs, rate, schedule, width = FINETUNING[name][data]
    published = {"epochs": epochs, "learning_rate": rate, "schedule": schedule}
    published |= {"batch_size": 256, "mixed_precision": "no", "warmup_steps": 0}
    assert {key: config["trainer"][key] for key in published} == published
    model, encoder = config["model"], config["model"]["modalities"]["audio"]["encoder"]
    assert model["embedding_dim"] == width
    assert encoder["batchnorm_frozen"] and not model["mean_over_padding"]  # in evaluation mode
    frames = {"msrvtt": 3072, "youcook2": 5120}[data]
    changed = config["evaluation"]["model"]["modalities"]["audio"]["encoder"]
    assert encoder["num_frames"] == changed["num_frames"] == frames
    assert config["data"]["max_audio_frames"] == frames


@pytest.mark.parametrize("path", BASELINES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_silent_clip_takes_part_in_published_baselines_alone(path):
    config = load_config(path, what_is_left_to_the_user(path))
    published = {"text": "video", "audio": "video"}  # whose code has no masks
    if config["model"]["modalities"]["text"] is None or path.stem == "avlnet_eao":
        del published["text"]
    assert config["loss"].get("presence", {}) == ({} if path.parent == ROOT else published)


def values_of(config):
    """The keys of a config; terms without a weight are as good as absent."""
    flat = flatten(config)
    return {k: None if k.startswith("loss.terms") and not v else v for k, v in flat.items()}


@pytest.mark.parametrize("name", ABLATIONS)
@pytest.mark.parametrize("base", ["eao", "spoken_digits", "msrvtt/finetune"])
def test_an_ablation_changes_of_any_base_what_it_is_named_after(name, base):
    plain = load_config(base, ["data_root=x"])
    changed = load_config(ROOT / f"ablations/{name}.yaml", [f"base={base}", "data_root=x"])
    before, after = map(values_of, (plain, changed))
    keys = {k for k in before | after if before.get(k) != after.get(k)} - {"output"}
    assert changed["output"] == f"runs/ablations/{name}"
    expected = ABLATIONS[name]
    assert {key: after.get(key) for key in keys} == {
        key: value for key, value in expected.items() if before.get(key) != value
    }
    check_config(changed)


def test_there_is_a_base_for_every_ablation():
    assert {path.stem for path in (ROOT / "ablations").glob("*.yaml")} == ABLATIONS.keys()
    for name in ABLATIONS:
        assert load_config(f"ablations/{name}") == load_config(f"ablations/{name}", ["base=eao"])


def test_there_are_configs():
    assert {path.name for path in CONFIGS} >= {"eao.yaml", "own_videos.yaml"}
    assert len(BASELINES) >= 17


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_sets_of_terms_of_a_study_make_configs(path, tmp_path):
    plan = read_plan(path, ["data_root=x"])
    every = plan.settings()
    assert (len(every), plan.seeds) == (plan.budget or 63, [0, 1])
    for setting in (*every[::9], every[-1]):
        config = load_config(plan.config, overrides_of(plan, setting, 1, tmp_path / "a b"))
        terms = check_config(config)["loss"](modalities=["text", "video", "audio"]).weights
        assert {*terms} == {*setting.names(plan.terms)}
        assert (config["seed"], config["output"]) == (1, str(tmp_path / "a b"))


def test_there_is_a_study_for_every_data_set():
    assert {path.stem for path in STUDIES} == {
        "study",
        "weights",
        "spoken_digits",
        "msrvtt",
        "youcook2",
    }
