"""Runs that cannot stand beside one another: one line that says which, in what, and the way out."""

import json
import shutil

import numpy as np
import pytest

from tests.compared import OTHER, PROTOCOL, SIZE, Compared


@pytest.fixture
def compared(tmp_path):
    return Compared(tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"protocol": "msrvtt-1k-A"}, f"protocol differs, '{PROTOCOL}' against 'msrvtt-1k-A'"),
        ({"split": "validation"}, "split differs, 'test' against 'validation'"),
        ({"counted": 50}, "number of clips counted differs, 40 against 50"),
        ({"ids": [f"b{i}" for i in range(SIZE)]}, "only .*one has 40, such as 'clip0'; only"),
        ({"shows": [0, 0, *range(1, 39)], "counted": 40}, "gallery differs, 40 against 39"),
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


def edit(run, name, change):
    file = f"{run}/{name}"
    with open(file) as opened:
        values = json.load(opened)
    change(values)
    with open(file, "w") as opened:
        json.dump(values, opened)


@pytest.mark.parametrize("name", ["results.json", "ranks.npz", "cost.json"])
def test_a_file_that_an_older_version_did_not_write_is_named(compared, name):
    compared.run("one", {"t->v": 0.5})
    two = compared.run("two", {"t->v": 0.5}, model=OTHER)
    (compared.folder / "two" / name).unlink()
    message = compared.refused(f"has no {name}; .*train again")
    assert f"{two}/config.yaml overwrite=true" in message


@pytest.mark.parametrize("name", ["results.json", "ranks.npz", "cost.json"])
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", b"[1]"])
def test_a_file_that_is_damaged_is_named(compared, name, content):
    compared.run("one", {"t->v": 0.5})
    compared.run("two", {"t->v": 0.5}, model=OTHER)
    (compared.folder / "two" / name).write_bytes(content)
    compared.refused(f"two/{name} (cannot be read|lacks)")


def test_ranks_of_another_run_are_noticed(compared):
    one = compared.run("one", {"t->v": 0.5})
    two = compared.run("two", {"t->v": 0.4}, model=OTHER)
    shutil.copy(f"{one}/ranks.npz", f"{two}/ranks.npz")
    compared.refused("ranks.npz and results.json disagree about t->v")


def test_clips_of_one_name_are_a_mistake(compared):
    compared.run("one", {"t->v": 0.5})
    path = compared.run("two", {"t->v": 0.5}, model=OTHER)
    arrays = dict(np.load(f"{path}/ranks.npz"))
    arrays["ids"][1] = arrays["ids"][0]
    np.savez(f"{path}/ranks.npz", **arrays)
    compared.refused("two/ranks.npz has the same name for several clips")


def test_older_ranks_without_clips_do_where_each_clip_has_one_caption(compared):
    """Before captions could share a clip, the file did not say which do."""
    for name, model in [("one", {}), ("two", OTHER)]:
        path = compared.run(name, {"t->v": 0.5}, model=model)
        arrays = dict(np.load(f"{path}/ranks.npz"))
        del arrays["clips"]
        np.savez(f"{path}/ranks.npz", **arrays)
    assert compared()["methods"]["two"]["directions"]["t->v"]["difference"]["R@1"] == 0
    for run in compared.words:
        edit(run, "results.json", lambda result: result["clips"].update(captions=40))
    shutil.rmtree(compared.folder / "out")
    compared.refused("does not say which captions share a clip; .*train again")


def test_too_few_runs_or_one_twice_is_a_mistake(compared):
    compared.refused("^no run is given.*python tools/compare.py RUN RUN")
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
