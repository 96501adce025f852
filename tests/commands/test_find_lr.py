"""The command that recommends learning rates, on the smallest corpus."""

import argparse
import json

import pytest

from fusion.commands.find_lr import _default_parts, _overrides, find_lr, format_rates
from fusion.config import load_config
from fusion.training.settings import Settings
from tests.tiny import write_config


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """A result with its folder, twice by the same command."""
    folder = tmp_path_factory.mktemp("rates")
    results = []
    for name in ("first", "second"):
        out = str(folder / name)
        find_lr(load_config(write_config(folder)), steps=6, repetitions=2, out=out)
        results.append(json.loads((folder / name / "rates.json").read_text()))
    return folder, *results


def test_rates_that_were_found_for_this_batch_are_not_scaled_to_it():
    assert _overrides(1e-3, {}, False) == ["trainer.learning_rate=1.0e-03"]
    assert _overrides(1e-3, {}, True)[-1] == "trainer.learning_rate_batch=null"
    assert (
        Settings(epochs=1, batch_size=64, learning_rate=1.0, learning_rate_batch=8).rate_factor == 8
    )


def test_the_same_command_finds_the_same_and_leaves_nothing_else(found):
    folder, first, second = found
    assert first == second
    left = sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())
    names = ("first/rates.json", "first/rates.svg", "second/rates.json", "second/rates.svg")
    assert left == [*names, "tiny.yaml"]


def test_every_part_has_a_rate(found):
    result = found[1]
    assert [row["name"] for row in result["parts"]] == ["whole model", "encoders.audio", "the rest"]
    assert all(1e-7 <= row["recommended"] <= 10 for row in result["parts"])
    assert (result["steps"], result["repetitions"], len(result["rates"])) == (6, 2, 6)
    assert all(len(row["gains"]) == len(row["each"]) == 2 for row in result["parts"])


def test_the_line_to_paste_is_taken_by_a_config(found):
    folder, result, _ = found
    words = [word.strip("'") for word in result["set"]]
    trainer = load_config(folder / "tiny.yaml", words)["trainer"]
    rates = {row["name"]: row["recommended"] for row in result["parts"]}
    assert trainer["learning_rate"] == pytest.approx(rates["the rest"], rel=0.06)
    part_rates = Settings(**trainer).part_rates
    assert part_rates == {"encoders.audio": pytest.approx(rates["encoders.audio"], rel=0.06)}


def test_the_picture_has_a_panel_for_each_part(found):
    svg = (found[0] / "first" / "rates.svg").read_text()
    assert svg.startswith("<svg")
    for name in ("whole model", "encoders.audio", "the rest", "learning rate", "1e-7", "1e1"):
        assert f">{name}</text>" in svg, name


def test_the_table_says_what_diverges_and_what_had_no_gain():
    rows = [
        {"name": "whole model", "recommended": 2e-3, "diverges": 0.05},
        {"name": "the rest", "recommended": 1e-3, "diverges": None, "note": "no gain seen"},
    ]
    assert format_rates({"parts": rows}).splitlines() == [
        "part         recommended  diverges at",
        "whole model      2.0e-03      5.0e-02",
        "the rest         1.0e-03     above 10  no gain seen",
    ]


def test_the_whole_model_alone_has_one_rate(tmp_path, capsys):
    find_lr(load_config(write_config(tmp_path)), parts=[], steps=6, repetitions=1)
    result = json.loads((tmp_path / "run-rates" / "rates.json").read_text())
    assert [row["name"] for row in result["parts"]] == ["whole model"]
    assert "part_learning_rates" not in capsys.readouterr().out


def test_a_part_that_is_not_there_is_explained(tmp_path):
    said = "--parts: no trained parameter is in 'encoder'; the parts are .*encoders.audio"
    with pytest.raises(ValueError, match=said):
        find_lr(load_config(write_config(tmp_path)), parts=["encoder"])
    assert not (tmp_path / "run-rates").exists()


def test_a_wrong_part_of_a_config_is_found_before_the_data_are_read(tmp_path, monkeypatch):
    config = load_config(write_config(tmp_path, trainer={"part_learning_rates": {"audio": 1e-5}}))
    monkeypatch.setattr(
        "fusion.tasks.retrieval.task.Retrieval.open_data", lambda self: pytest.fail()
    )
    with pytest.raises(ValueError, match="part_learning_rates: no trained .* is in 'audio'"):
        find_lr(config)


def test_the_encoders_of_a_model_within_another_are_parts_too():
    job = argparse.Namespace(settings=argparse.Namespace(part_rates={}))
    names = ["eao.encoders.image.net.0.weight", "eao.encoders.text.model.x", "heads.answers.1.bias"]
    assert _default_parts(job, names) == ["eao.encoders.image", "eao.encoders.text"]
