from contextlib import nullcontext
from pathlib import Path

import pytest
import yaml

from fusion.config import ConfigError, changed_keys, check, choose, flatten, load_config, to_yaml
from fusion.models import MODELS

ROOT = Path(__file__).parents[1]
SECTIONS = {
    name: {"name": name}
    for name in ["data", "text_encoder", "model", "loss", "trainer", "evaluation"]
}
MINIMAL = {"output": "runs/x", **SECTIONS}


@pytest.fixture
def write(tmp_path):
    def write(name, content):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
        return path

    return write


def test_defaults_are_filled_in(write):
    config = load_config(write("c.yaml", MINIMAL))
    assert (config["seed"], config["resume"], config["overwrite"]) == (0, False, False)


def test_a_section_of_another_name_replaces_that_of_the_base(write):
    write("base.yaml", MINIMAL | {"data": {"name": "demo", "films": 2}})
    other = write("c.yaml", {"base": "base.yaml", "data": {"name": "videos", "train": "x"}})
    same = write("d.yaml", {"base": "base.yaml", "data": {"name": "demo", "max_video_tokens": 3}})
    assert load_config(other)["data"] == {"name": "videos", "train": "x"}
    assert load_config(same)["data"] == {"name": "demo", "films": 2, "max_video_tokens": 3}
    assert load_config(same, ["data.name=videos"])["data"] == {"name": "videos"}
    assert load_config(same, ["data.films=3"])["data"]["films"] == 3


def test_data_root_can_be_left_to_the_user(write):
    path = write("c.yaml", MINIMAL | {"data_root": "???", "output": "${data_root}/run"})
    with pytest.raises(ConfigError, match="leaves data_root to you; add data_root=VALUE"):
        load_config(path)
    assert load_config(path, ["data_root=/d"])["output"] == "/d/run"
    two = write("two.yaml", MINIMAL | {"data_root": "???", "data": {"train": "???"}})
    message = "leaves data.train and data_root to you; add data.train=VALUE data_root=VALUE to the"
    with pytest.raises(ConfigError, match=message):
        load_config(two)
    assert load_config(write("d.yaml", MINIMAL))["data_root"] is None


def test_a_base_is_merged_key_by_key_and_overrides_win(write):
    write("base.yaml", MINIMAL | {"trainer": {"epochs": 3, "batch_size": 8}, "seed": 5})
    path = write("c.yaml", {"base": "base.yaml", "trainer": {"batch_size": 16}})
    config = load_config(path, ["trainer.epochs=1", "output=elsewhere", "trainer.rate=1e-4"])
    assert config["trainer"] == {"epochs": 1, "batch_size": 16, "rate": 1e-4}
    assert (config["seed"], config["output"]) == (5, "elsewhere")
    assert "base" not in config


def test_a_config_survives_being_written(write):
    config = load_config(write("c.yaml", MINIMAL), ["trainer.combinations=[t,va]"])
    assert load_config(write("again.yaml", to_yaml(config))) == config


@pytest.mark.parametrize(
    ("content", "overrides", "message"),
    [
        ("a: [1", (), "not a YAML file that can be read: line"),
        ("- a\n- b", (), "must hold `key: value` lines"),
        ("just text", (), "just text is unknown; known are output, data"),
        (MINIMAL | {"every\nthing\n\n": {}}, (), "c.yaml: every thing +is unknown; known are"),
        (MINIMAL | {"every\u2028thing\r": {}}, (), "c.yaml: every thing +is unknown; known are"),
        (MINIMAL | {"modle": {}}, (), "modle is unknown; did you mean 'model'"),
        (MINIMAL, ["sed=1"], "sed is unknown; did you mean 'seed'"),
        (MINIMAL, ["seed"], "override 'seed' must be key=value"),
        (MINIMAL, ["seed=one"], "seed must be a whole number; got 'one'"),
        (MINIMAL, ["resume=2"], "resume must be true or false; got 2"),
        (MINIMAL, ["model=eao"], "model must be `key: value` lines; got 'eao'"),
        ({"base": "none.yaml"}, (), "no config at .*none.yaml \\(base of"),
        ({"base": "c.yaml"}, (), "its bases lead back to itself"),
        ({k: v for k, v in MINIMAL.items() if k != "loss"}, (), "loss is missing"),
        (MINIMAL | {"seed": "${nothing}"}, (), "nothing"),
        (
            MINIMAL | {"data": {"train": "???"}},
            (),
            "leaves data.train to you; add data.train=VALUE",
        ),
    ],
)
def test_what_cannot_be_read_is_explained_in_one_line(write, content, overrides, message):
    with pytest.raises(ConfigError, match=message) as error:
        load_config(write("c.yaml", content), overrides)
    assert len(str(error.value).splitlines()) == 1


def test_a_folder_does_not_hide_a_recipe(tmp_path, monkeypatch):
    (tmp_path / "eao").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load_config("eao")["model"]["name"] == "eao"


def test_a_base_may_be_a_recipe_or_a_file_beside(write):
    path = write("own.yaml", {"base": "eao", "seed": 7})
    assert load_config(path) == load_config("eao") | {"seed": 7}
    write("eao", MINIMAL | {"seed": 3})
    assert load_config(write("own.yaml", {"base": "eao"}))["seed"] == 3


def test_an_override_puts_a_config_on_another_base(write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    change = {"base": "none.yaml", "model": {"width": 3}, "output": "runs/changed"}
    path = write("change.yaml", change)
    first = write("first.yaml", MINIMAL | {"seed": 1})
    (tmp_path / "other").mkdir()
    write("other/second.yaml", {"base": str(first), "seed": 2, "model": {"name": "model", "d": 4}})
    words = ["base=first.yaml", "base=other/second.yaml", "seed=5"]  # the last of a key counts
    config = load_config(path, words)
    assert (config["seed"], config["output"]) == (5, "runs/changed")
    assert config["model"] == {"name": "model", "d": 4, "width": 3}
    assert {*changed_keys("model", path, words)} == {"name", "d", "width"}
    assert load_config(path, ["base=eao"])["model"] == load_config("eao")["model"] | {"width": 3}
    with pytest.raises(ConfigError, match="did you mean the recipe eao"):
        load_config(path, ["base=eaoo"])
    with pytest.raises(ConfigError, match="is a folder; name a config"):
        load_config(path, ["base="])
    with pytest.raises(ConfigError, match="its bases lead back to itself"):
        load_config(path, ["base=change.yaml"])


def test_a_missing_file_is_explained(tmp_path):
    with pytest.raises(ConfigError, match="no config at .*nowhere.yaml"):
        load_config(tmp_path / "nowhere.yaml")


def target(
    width: int, rate: float = 0.1, name: str | None = None, parts: list[str] = (), on: bool = True
):
    return width, rate, name, parts, on


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"width": 1, "rat": 2}, "model.rat is unknown; did you mean 'rate'"),
        ({"width": 1, "zzz": 2}, "model.zzz is unknown; known are width, rate"),
        ({}, "model.width is missing"),
        ({"width": "wide"}, "model.width must be a whole number; got 'wide'"),
        ({"width": True}, "model.width must be a whole number; got True"),
        ({"width": 1.5}, "model.width must be a whole number; got 1.5"),
        ({"width": 1, "rate": "fast"}, "model.rate must be a number; got 'fast'"),
        ({"width": 1, "on": 1}, "model.on must be true or false; got 1"),
        ({"width": 1, "parts": 3}, "model.parts must be a list; got 3"),
        ({"width": 1, "name": 3}, "model.name must be a text or null; got 3"),
        ({"width": 1, "name": {"a": None}}, r"if it is a text, write 'model.name=\"{a}\"'"),
        ({"width": 1, "name": {"a": 2}}, r"model.name must be a text or null; got {'a': 2}$"),
    ],
)
def test_a_section_is_checked_against_what_it_builds(values, message):
    with pytest.raises(ConfigError, match=message):
        check("model", values, target)


def test_a_section_that_fits_passes():
    check("model", {"width": 1, "rate": 2, "name": None, "parts": ["a"], "on": False}, target)


def test_arguments_that_the_program_gives_cannot_be_set():
    with pytest.raises(ConfigError, match="model.rate is unknown"):
        check("model", {"width": 1, "rate": 2}, target, given=["rate"])


def test_a_name_is_looked_up_and_its_arguments_bound():
    build = choose("model", {"name": "it", "width": 3}, {"it": target})
    assert build()[0] == 3


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ("width must be even; got 3", "model.width must be even; got 3"),
        ("weights.pth: no such file", "weights.pth: no such file"),
    ],
)
def test_what_a_part_says_of_an_argument_names_its_section(said, read):
    def target(width):
        raise ValueError(said)

    with pytest.raises(ValueError) as error:
        choose("model", {"name": "it", "width": 3}, {"it": target})()
    assert str(error.value) == read


@pytest.mark.parametrize(
    ("name", "message"),
    [("itt", "model.name: unknown 'itt'; did you mean 'it'"), ("q", "choose from it")],
)
def test_an_unknown_name_is_explained(name, message):
    with pytest.raises(ConfigError, match=message):
        choose("model", {"name": name}, {"it": target})


def test_flatten():
    assert flatten({"a": {"b": 1, "c": {"d": [2]}}, "e": {}}) == {"a.b": 1, "a.c.d": [2], "e": {}}


def test_another_encoder_or_a_width_replaces_the_encoder_of_the_base(tmp_path):
    def modality(changes):
        path = tmp_path / "own.yaml"
        lines = f"base: {ROOT / 'configs' / 'eao.yaml'}\nmodel: {{modalities: {changes}}}\n"
        path.write_text(lines)
        return load_config(path)["model"]["modalities"]

    own = "{audio: {encoder: {name: 'my_parts:Frames', width: 64}}}"
    assert modality(own)["audio"] == {"encoder": {"name": "my_parts:Frames", "width": 64}}
    assert modality("{audio: {dim: 16}}")["audio"] == {"dim": 16}
    video = "{video: {encoder: {name: 'my_parts:Frames'}}}"
    assert modality(video)["video"] == {"encoder": {"name": "my_parts:Frames"}}
    kept = modality("{audio: {encoder: {num_frames: 128}}}")["audio"]["encoder"]
    assert (kept["name"], kept["version"], kept["num_frames"]) == ("davenet", 1, 128)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("seed: ${oc.env:HOME}", r"seed asks for \$\{oc.env:HOME\}, as no config of a run does"),
        ("seed: ${oc.decode:'1'}", "seed asks for"),
        ("seed: x${oc.env:HOME}", "seed asks for"),
    ],
)
def test_a_config_of_a_run_asks_for_nothing_of_this_machine(tmp_path, line, message):
    file = tmp_path / "config.yaml"
    file.write_text(f"base: eao\noutput: x\n{line}\n")
    with pytest.raises(ConfigError, match=message):
        load_config(file, own=False)
    with pytest.raises(ConfigError, match="must be") if "env" in line else nullcontext():
        load_config(file)  # the user's own is followed, to a home that is no number


@pytest.mark.parametrize("base", ["5", "[eao]", "{a: 1}", "true"])
def test_a_base_is_a_name(tmp_path, base):
    (tmp_path / "config.yaml").write_text(f"base: {base}\noutput: x\n")
    with pytest.raises(ConfigError, match="base is .*; name a config or a recipe"):
        load_config(tmp_path / "config.yaml")


@pytest.mark.parametrize(
    "change", ["token_dim=0", "embedding_dim=-1", "num_heads=0", "modalities.text.dim=0"]
)
def test_widths_are_positive(change):
    key, _, value = change.partition("=")
    with pytest.raises(ConfigError, match=f"model.{key} must be at least 1; got {value}"):
        load_config("eao", [f"model.{change}"])
    load_config("eao", ["model.num_blocks=0"])  # an ablation


@pytest.mark.parametrize("value", ["text", "[text]", "5"])
def test_modalities_that_are_no_mapping_are_one_line(tmp_path, value):
    """Found by ``python -m tests.fuzz config``."""
    (tmp_path / "config.yaml").write_text(f"base: eao\nmodel: {{modalities: {value}}}\n")
    with pytest.raises(ConfigError):
        choose("model", load_config(tmp_path / "config.yaml")["model"], MODELS)
