"""The command ``fusion``: names, help and mistakes."""

import configparser
import subprocess
import sys
from pathlib import Path

import pytest

import fusion
from fusion.cli.main import COMMANDS, main
from fusion.config import ConfigError, load_config
from fusion.recipes import find_config, list_recipes

ROOT = Path(__file__).parents[2]


def fails(capsys, *words):
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    return capsys.readouterr()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_examples_of_its_name(name, capsys):
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])
    text = capsys.readouterr().out
    assert stop.value.code == 0
    assert f"usage: fusion {name}" in text and f"\n  fusion {name} " in text
    assert "{" not in text.replace("{howto100m,pickle,verify}", "").replace("{resnet,s3d,clip}", "")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_a_tool_too(name, tool):
    file = name.replace("-", "_")
    code, text, _ = tool(f"tools/{file}.py", "--help")
    assert code == 0 and f"usage: python tools/{file}.py" in text


def test_a_misspelt_command_is_named(capsys):
    assert "there is no command 'trian'; did you mean 'train'?" in fails(capsys, "trian").err


def test_without_a_command_the_help_is_shown(capsys):
    assert "commands:" in fails(capsys).out


def test_a_misspelt_option_is_named(capsys):
    assert "did you mean --json?" in fails(capsys, "evaluate", "runs/eao", "--jsn", "a").err


def test_the_version_is_that_of_the_package(capsys):
    with pytest.raises(SystemExit):
        main(["--version"])
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert capsys.readouterr().out == f"fusion {fusion.__version__}\n"
    assert setup["metadata"]["version"] == fusion.__version__


def test_help_imports_no_torch():
    program = (
        "import sys\nfrom fusion.cli.main import main\n"
        "try: main(['train', '--help'])\nexcept SystemExit: pass\n"
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


def test_recipes_are_found_by_name_from_any_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert load_config("eao") == load_config(ROOT / "configs" / "eao.yaml")
    assert find_config("youcook2/finetune").name == "finetune.yaml"
    assert find_config("configs/eao.yaml").exists()
    with pytest.raises(ConfigError, match="did you mean the recipe eao"):
        load_config("eoa")


def test_an_installed_package_has_every_recipe_and_every_folder():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    packages = setup["options"]["packages"].split()
    folders = {f.parent.relative_to(ROOT) for f in (ROOT / "fusion").rglob("__init__.py")}
    assert {".".join(folder.parts) for folder in folders} | {"fusion.configs"} == set(packages)
    assert setup["options"]["package_dir"].split() == ["fusion.configs", "=", "configs"]
    assert len(list_recipes()) == len(list((ROOT / "configs").rglob("*.yaml"))) > 40
