"""A config names parts by their import path; a checkpoint that does needs trust."""

import re
import sys
from pathlib import Path

import pytest
import torch
import yaml

import fusion
from fusion.checkpoint import CheckpointError
from fusion.cli.main import main
from fusion.commands.evaluate import evaluate
from fusion.commands.train import train
from fusion.config import ConfigError, load_config
from fusion.models import EAO
from fusion.parts import find_part
from fusion.tokens import Tokens
from tests.own import CONFIG, Frames, Words

ROOT = Path(__file__).parents[1]
REFUSED = (
    r"model.name tests.own:Model.*would import and run tests.own; if you trust this code, say so:"
    r" fusion.load\(..., trust=True\), --trust"
)


def write(folder, **changes):
    (folder / "own.yaml").write_text(yaml.safe_dump(CONFIG | changes))
    return folder / "own.yaml"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs with own parts alone."""
    folder = tmp_path_factory.mktemp("own")
    for seed in (0, 1):
        config = load_config(write(folder), [f"output={folder}/{seed}", f"seed={seed}"])
        train(config)
    return folder


def test_own_parts_train_and_evaluate(runs):
    table = evaluate(runs / "0", None, None, trust=True)["directions"]
    assert set(table) == {"t->v", "v->t"}
    assert (runs / "0/report.html").exists()


def test_a_checkpoint_with_own_parts_needs_trust(runs):
    for refused in (lambda: fusion.load(runs / "0"), lambda: evaluate(runs / "0", None, None)):
        with pytest.raises(CheckpointError, match=REFUSED):
            refused()


def test_nothing_is_imported_without_trust(runs, tool, tmp_path):
    (tmp_path / "program.py").write_text(
        "import sys, fusion\n"
        f"try: fusion.load({str(runs / '0')!r})\n"
        "except ValueError: pass\n"
        "sys.exit('tests.own' in sys.modules)"
    )
    assert tool(tmp_path / "program.py") == (0, "", "")


def test_trust_in_one_part_is_no_trust_in_another(runs, tmp_path):
    config = {"text_encoder": {"name": "tests.own:Words"}, "model": {"name": "tests.other:Model"}}
    changed = load_config(runs / "0/config.yaml") | config | {"trust": True}
    folder = tmp_path / "stranger"
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(changed))
    (folder / "model.safetensors").write_bytes((runs / "0/best/model.safetensors").read_bytes())
    own = [f"init={folder}", f"output={tmp_path}/run"]
    with pytest.raises(CheckpointError, match="model.name tests.other:Model.*import and run"):
        train(load_config(write(tmp_path), own))
    train(load_config(write(tmp_path), [*own, "trust=true"]))


def test_a_run_goes_on_without_trust_as_its_config_is_the_users(runs, tmp_path):
    config = [f"output={tmp_path}/run"]
    train(load_config(write(tmp_path), config))
    train(load_config(write(tmp_path), [*config, "resume=true"]))
    train(load_config(write(tmp_path), [f"init={tmp_path}/run", f"output={tmp_path}/next"]))


def test_the_command_begins_with_own_parts(runs, tmp_path, capsys):
    other = {"text_encoder": {"name": "tests.own:LearntWords", "scale": 3.0}}
    main(["train", str(write(tmp_path, **other)), f"output={tmp_path}/learnt"])
    words = ["train", str(write(tmp_path)), f"init={tmp_path}/learnt", f"output={tmp_path}/next"]
    with pytest.raises(SystemExit):
        main(words)
    assert "LearntWords), and loading it would import" in capsys.readouterr().err
    main([*words, "trust=true"])
    saved = load_config(tmp_path / "next/config.yaml")
    assert saved["text_encoder"] == other["text_encoder"]
    main([*words[:2], f"init={runs / '0'}", f"output={tmp_path}/same"])


def test_compare_evaluates_checkpoints_with_trust(runs, tmp_path, capsys):
    checkpoints = [str(runs / f"{seed}/best") for seed in (0, 1)]
    words = ["compare", *checkpoints, "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit):
        main(words)
    assert "--trust of a command" in capsys.readouterr().err
    main([*words, "--trust"])
    assert (tmp_path / "out/comparison.html").exists()


def test_a_mistake_in_an_own_module_is_not_a_wrong_name(tmp_path, monkeypatch):
    (tmp_path / "wrong_inside.py").write_text("import math\nmath.sinus\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"cannot be imported \(AttributeError: .*'sinus'"):
        find_part("model.name", "wrong_inside:Model", {})


def test_own_parts_encode_and_are_saved(runs, tmp_path):
    model = fusion.load(runs / "0", trust=True)
    assert model.text_encoder.scale == 2.0
    tokens = Words(2.0)("red ring")
    torch.testing.assert_close(model.encode("red ring"), model.encode({"text": tokens}))
    assert model.encode({"video": torch.eye(6)[:1]}, "v").shape == (8,)
    model.save_pretrained(tmp_path / "saved")
    again = fusion.Model.from_pretrained(str(tmp_path / "saved"), trust=True)
    torch.testing.assert_close(again.encode("red ring"), model.encode("red ring"))


def test_runs_of_own_parts_are_compared_without_importing_them(runs, tool, tmp_path):
    loss = {"name": "tests.own:Nearest", "temperature": 1.0}
    train(load_config(write(tmp_path, loss=loss), [f"output={tmp_path}/warm"]))
    named = [f"cold={runs / '0'}", f"warm={tmp_path / 'warm'}"]
    (tmp_path / "program.py").write_text(
        "import sys; from fusion.commands.compare import compare\n"
        f"compare({named}, {str(tmp_path / 'out')!r}, None)\n"
        "sys.exit('tests.own' in sys.modules)"
    )
    code, _, errors = tool(tmp_path / "program.py")
    assert code == 0, errors
    assert "warm" in (tmp_path / "out/comparison.html").read_text()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"name": "tests.own:Model", "widht": 4}}, "widht is unknown; did you mean 'wid"),
        ({"loss": {"name": "tests.own:Nearest", "modalities": []}}, "modalities is unknown"),
        ({"model": {"name": "tests.own:Modell"}}, "model.name: tests.own has no 'Modell'"),
        ({"data": {"name": "tests.nowhere:Data"}}, r"nowhere cannot be imported \(ModuleNotFound"),
        ({"text_encoder": {"name": "tests.own:Words", "scale": "x"}}, "scale must be a number"),
        ({"text_encoder": {"name": "tests.own:Word"}}, "tests.own has no 'Word'"),
    ],
)
def test_mistakes_in_a_config_with_own_parts_are_explained(tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        train(load_config(write(tmp_path, **changes), [f"output={tmp_path}/run"]))


def test_the_example_of_the_docs_works(tmp_path, monkeypatch):
    page = (ROOT / "docs/own_parts.md").read_text()
    code, section = (
        re.search(rf"```{kind}\n(.*?)```", page, re.S)[1] for kind in ("python", "yaml")
    )
    (tmp_path / "my_parts.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    modalities = yaml.safe_load(section)["model"]["modalities"]
    model = EAO(modalities, ["a"], token_dim=8, embedding_dim=8, num_heads=2)
    assert model({"audio": Tokens.pack([torch.rand(3, 40)])})["a"].shape == (1, 8)


def test_modules_are_found_in_the_folder_of_the_command(tmp_path, monkeypatch):
    (tmp_path / "only_here.py").write_text("from tests.own import Frames as Own\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    spec = {"encoder": {"name": "only_here:Own", "width": 4}}
    sizes = {"token_dim": 8, "embedding_dim": 8, "num_heads": 2}
    model = EAO({"audio": spec}, ["a"], **sizes)
    assert isinstance(model.encoders["audio"], Frames)
    assert model({"audio": Tokens.pack([torch.rand(3, 40)])})["a"].shape == (1, 8)
    with pytest.raises(ValueError, match="audio.encoder: .*unexpected keyword argument 'widht'"):
        EAO({"audio": {"encoder": {"name": "only_here:Own", "widht": 4}}}, ["a"], **sizes)
