"""Runs that cannot stand beside one another: one line that says which, in what, and the way out."""

import json

import numpy as np
import pytest

from fusion.config import ConfigError
from tests.report.compared import OTHER, PROTOCOL, SIZE, first

WORDS = [f"text of clip{i}" for i in range(SIZE)]  # as runs have them


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"protocol": "msrvtt-1k-A"}, f"protocol differs, '{PROTOCOL}' against 'msrvtt-1k-A'"),
        ({"split": "validation"}, "split differs, 'test' against 'validation'"),
        ({"counted": 50}, "number of clips counted differs, 40 against 50"),
        ({"ids": [f"b{i}" for i in range(SIZE)]}, "only .*one has 40, such as 'clip0'; only"),
        ({"shows": [0, 0, *range(1, 39)], "counted": 40}, "gallery differs, 40 against 39"),
        ({"texts": ["another", *WORDS[1:]]}, "same names but other sentences"),
    ],
)
def test_runs_of_different_tests_are_refused_by_what_differs(compared, change, said):
    one = compared.run("one", {"t->v": 0.5})
    two = compared.run("two", {"t->v": 0.5}, model=OTHER, **change)
    message = compared.refused(said)
    assert one in message and two in message


def test_runs_whose_captions_belong_to_other_clips_are_refused(compared):
    compared.run("one", {"t->v": 0.5}, shows=[0, 0, *range(1, 39)])
    compared.run("two", {"t->v": 0.5}, shows=[*range(39), 38], model=OTHER)
    compared.refused("captions belong to other clips")


def test_runs_with_other_numbers_of_queries_are_refused(compared):
    compared.run("one", {"t->v": 0.5})
    two = compared.run("two", {"t->v": 0.5}, model=OTHER)
    edit(two, "results.json", lambda result: result["directions"]["t->v"].update(gallery=39))
    compared.refused("the gallery of t->v differs, 40 against 39")


@pytest.mark.parametrize("size", [40, 7])
def test_a_direction_that_the_first_run_lacks_is_compared_among_the_others(compared, size):
    compared.run("one", {"t->v": 0.5})
    compared.run("two", {"t->v": 0.5, "v->a": 0.5}, model={"num_heads": 4})
    three = compared.run("three", {"t->v": 0.5, "v->a": 0.5}, model={"num_heads": 8})
    edit(three, "results.json", lambda result: result["directions"]["v->a"].update(gallery=size))
    if size == 40:
        assert list(compared()["methods"]) == ["one", "two", "three"]
    else:
        message = compared.refused("the gallery of v->a differs, 40 against 7")
        assert "/two and " in message and "/one" not in message


def test_captions_of_a_clip_in_another_order_are_noticed(compared):
    """They are numbered in their order, so that x#2 of one run is not x#2 of the other."""
    shows, ids = [0, 0, *range(1, 39)], ["x", "x", *(f"clip{i}" for i in range(1, 39))]
    compared.run("one", {"t->v": 0.5}, shows=shows, ids=ids, texts=["a", "b", *WORDS[2:]])
    how = {"shows": shows, "ids": ids, "texts": ["b", "a", *WORDS[2:]]}
    compared.run("two", {"t->v": 0.5}, model=OTHER, **how)
    compared.refused("other sentences, or those of a clip in another order")


def edit(run, name, change):
    file = f"{run}/{name}"
    with open(file) as opened:
        values = json.load(opened)
    change(values)
    with open(file, "w") as opened:
        json.dump(values, opened)


def edit_ranks(run, **changes):
    arrays = dict(np.load(f"{run}/ranks.npz")) | changes
    np.savez(f"{run}/ranks.npz", **{k: v for k, v in arrays.items() if v is not None})


@pytest.mark.parametrize("name", ["results.json", "ranks.npz", "cost.json"])
def test_a_file_of_a_newer_version_is_named_with_its_format(compared, name):
    compared.run("one", {"t->v": 0.5})
    two = compared.run("two", {"t->v": 0.5}, model=OTHER)
    if name == "ranks.npz":
        edit_ranks(two, format=np.array(2))
    else:
        edit(two, name, lambda values: values.update(format=2))
    compared.refused(f"two/{name} has format 2, and this version of fusion reads formats up to 1")


def test_files_from_before_there_were_formats_are_read(compared):
    for name, changes in [("one", {}), ("two", {"model": OTHER})]:
        compared.run(name, {"t->v": 0.5, "t->va": 0.5}, **changes)
    new = compared()
    older = str(compared.folder / "one")
    edit(older, "cost.json", lambda values: values.pop("format"))
    edit(older, "results.json", lambda values: (values.pop("format"), values.pop("table")))
    edit_ranks(older, format=None)
    assert compared() == new


@pytest.mark.parametrize("name", ["results.json", "ranks.npz", "cost.json"])
def test_a_file_that_an_older_version_did_not_write_is_named(compared, name):
    compared.run("one", {"t->v": 0.5})
    two = compared.run("two", {"t->v": 0.5}, model=OTHER)
    (compared.folder / "two" / name).unlink()
    message = compared.refused(f"has no {name}; ")
    assert (
        f"fusion train {two}/config.yaml output={two} resume=true overwrite=false ends" in message
    )


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ids", "ranks.npz lacks 'ids'"),
        ("clips", "ranks.npz lacks 'clips'"),
        ("test", "ranks.npz lacks 'test'"),
        ("protocol_parts", "results.json lacks 'protocol_parts'"),
    ],
)
def test_a_run_of_an_older_version_is_to_be_evaluated_again(compared, name, said):
    compared.run("one", {"t->v": 0.5})
    two = compared.run("two", {"t->v": 0.5}, model=OTHER)
    if name == "protocol_parts":
        edit(two, "results.json", lambda result: result.pop(name))
    else:
        edit_ranks(two, **{name: None})
    message = compared.refused(f"{said}; .* resume=true overwrite=false ends it, or evaluates it")
    assert "\n" not in message


def test_a_file_is_no_folder_for_pages(compared):
    compared.run("one", {"t->v": 0.5})
    compared.run("two", {"t->v": 0.5}, model=OTHER)
    (compared.folder / "out").touch()
    with pytest.raises(ConfigError, match="out is a file; name a folder"):
        compared()


@pytest.mark.parametrize("name", ["results.json", "ranks.npz", "cost.json"])
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", b"[1]"])
def test_a_file_that_is_damaged_is_named(compared, name, content):
    compared.run("one", {"t->v": 0.5})
    compared.run("two", {"t->v": 0.5}, model=OTHER)
    (compared.folder / "two" / name).write_bytes(content)
    compared.refused(f"two/{name} (cannot be read|lacks)")


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("results.json", {"directions": None}, "directions cannot be None"),
        ("results.json", {"directions": {"t->v": 1}}, "a part of it cannot be 1"),
        ("results.json", {"clips": []}, r"clips cannot be \[\]"),
        ("results.json", {"chance": {"R@1": "2.5"}}, "R@1 cannot be '2.5'"),
        ("results.json", {"ceiling": {"t->v": 90}}, "a part of it cannot be 90"),
        ("results.json", {"by_cosine": [1]}, "'list' object has no attribute 'values'"),
        ("cost.json", {"gflop_per_clip": None}, "gflop_per_clip cannot be None"),
        ("cost.json", {"training_seconds": "60"}, "training_seconds cannot be '60'"),
        ("cost.json", {"threads": [2]}, r"threads cannot be \[2\]"),
    ],
)
def test_a_value_of_another_type_is_named(compared, name, change, said):
    compared.run("one", {"t->v": 0.5})
    two = compared.run("two", {"t->v": 0.5}, model=OTHER)
    edit(two, name, lambda values: values.update(change))
    assert "\n" not in compared.refused(f"two/{name} cannot be read: {said}; .*resume=true")


@pytest.mark.parametrize("key", ["gallery", "queries", "R@1", "MedR"])
def test_a_row_that_lacks_a_number_is_named(compared, key):
    compared.run("one", {"t->v": 0.5})
    two = compared.run("two", {"t->v": 0.5}, model=OTHER)
    edit(two, "results.json", lambda result: result["directions"]["t->v"].pop(key))
    compared.refused(f"two/results.json lacks '{key}'; .*resume=true")


@pytest.mark.parametrize(
    "ranks",
    [
        np.where(np.arange(SIZE) % 39 > 0, first(0.5), 1.25),
        np.where(first(0.5) == 1, 1.0, 6.0),
        np.where(first(0.5) == 1, 1.0, np.where(np.arange(SIZE) < SIZE - 1, 1.5, 11.0)),
        np.where(first(0.5) == 1, 1.0, 1.6),
    ],
    ids=["R@1", "R@5", "R@10", "MedR"],
)
def test_ranks_of_another_run_are_noticed(compared, ranks):
    """The results are those of half the queries in place 1, and half between 1 and 2."""
    compared.run("one", {"t->v": 0.5})
    two = compared.run("two", {"t->v": 0.5}, model=OTHER)
    edit_ranks(two, **{"t->v ranks": ranks})
    compared.refused("ranks.npz cannot be read: it and results.json disagree about t->v")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"clips": np.arange(39)}, "names and numbers do not fit"),
        ({"clips": np.zeros(40, str)}, "names and numbers do not fit"),
        ({"t->v queries": np.array([f"x{i}" for i in range(SIZE)])}, "disagree about t->v"),
        ({"t->v queries": np.arange(39)}, "disagree about t->v"),
        ({"t->v ranks": np.ones((SIZE, 1))}, "disagree about t->v"),
        ({"t->v ranks": np.zeros(SIZE, str)}, "disagree about t->v"),
        ({"t->v ranks": None}, "disagree about t->v"),
    ],
)
def test_ranks_that_do_not_fit_one_another_are_noticed(compared, change, said):
    compared.run("one", {"t->v": 0.5})
    two = compared.run("two", {"t->v": 0.5}, model=OTHER)
    edit_ranks(two, **change)
    compared.refused(f"two/ranks.npz .*{said}.*resume=true")


def test_clips_of_one_name_are_a_mistake(compared):
    compared.run("one", {"t->v": 0.5})
    path = compared.run("two", {"t->v": 0.5}, model=OTHER)
    edit_ranks(path, ids=np.array(["clip0", "clip0", *(f"clip{i}" for i in range(2, SIZE))]))
    compared.refused("two/ranks.npz cannot be read: several clips have the same name")


def test_too_few_runs_or_one_twice_is_a_mistake(compared):
    compared.refused(
        "^no run is given.*add the folder of another run, a checkpoint, or a file that"
    )
    path = compared.run("one", {"t->v": 0.5})
    compared.refused("^1 run is given")
    compared.words.append(f"{path}/")
    compared.refused("is given twice")


def test_one_seed_made_twice_is_a_mistake(compared):
    compared.run("one", {"t->v": 0.5})
    compared.run("two", {"t->v": 0.5})
    compared.refused(r"same config and the same seed \(0\).*leave one out")


def test_a_folder_that_is_no_run_is_a_mistake(compared):
    compared.run("one", {"t->v": 0.5})
    compared.words.append(str(compared.folder))
    compared.refused("no folder of a run: it has no config.yaml")
    compared.words[-1] = str(compared.folder / "nowhere")
    compared.refused("^there is no .*nowhere; give the output=FOLDER of training, or a file that")


def test_other_tests_are_told_how_to_be_made_one(compared):
    compared.run("one", {"t->v": 0.5})
    compared.run("two", {"t->v": 0.5}, model=OTHER, split="validation")
    compared.refused("; evaluate both on one test and compare the files: fusion evaluate RUN --set")


def test_a_finished_run_without_a_test_is_not_told_to_be_resumed(compared):
    compared.run("one", {"t->v": 0.5})
    two = compared.run("two", {"t->v": 0.5}, model=OTHER)
    (compared.folder / "two" / "results.json").unlink()
    (compared.folder / "two" / "report.html").touch()
    said = compared.refused("has no results.json; the run is finished, and its data had nothing")
    assert said.endswith(f"fusion evaluate {two} --set CONFIG --json FILE")


def test_names_that_contradict_the_configs_are_mistakes(compared):
    compared.run("one", {"t->v": 0.5}, name="EAO")
    compared.run("two", {"t->v": 0.5}, name="EAO", model=OTHER)
    compared.refused("cannot both be called 'EAO'.*model.num_heads: 2 against 4")
    compared.words.pop()
    compared.run("three", {"t->v": 0.5}, name="MCN", seed=1)
    compared.refused("one method; call both 'EAO' or both 'MCN'")


def test_an_unknown_baseline_is_a_mistake(compared):
    compared.run("eao", {"t->v": 0.5})
    compared.run("mcn", {"t->v": 0.5}, model=OTHER)
    compared.refused("'eoa' is none of the runs; choose from eao, mcn", baseline="eoa")
