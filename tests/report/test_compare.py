"""Runs beside one another: what is compared and what is written."""

import json
import runpy
import statistics

import numpy as np
import pytest

from tests.conftest import ROOT
from tests.report.compared import COST, OTHER, PROTOCOL, SIZE, first, random_ranks
from tests.report.test_run_page import ATTACK, Page


def test_runs_that_differ_in_their_seed_alone_are_one_method(compared):
    shares = [0.5, 0.6, 0.85]
    for seed, share in enumerate(shares):
        compared.run(f"eao-seed{seed}", {"t->va": share}, seed=seed)
    compared.run("mcn", {"t->va": 0.3}, model=OTHER)
    compared.words.insert(0, compared.words.pop())  # grouping does not need them side by side
    compared.words.append(compared.words.pop(1))
    comparison = compared()
    assert list(comparison["methods"]) == ["mcn", "eao"]
    method = comparison["methods"]["eao"]
    row = method["directions"]["t->va"]
    assert method["seeds"] == [1, 2, 0]
    assert row["R@1_of_seeds"] == pytest.approx([60, 85, 50])
    assert row["R@1"] == pytest.approx(65)
    assert row["R@1_deviation"] == pytest.approx(statistics.stdev([50, 60, 85]))
    assert row["difference"]["R@1"] == pytest.approx(35)
    assert comparison["methods"]["mcn"]["directions"]["t->va"]["R@1_deviation"] is None


def test_what_does_not_change_a_result_does_not_make_another_method(compared):
    compared.run("a-1", {"t->v": 0.5}, seed=1)
    trainer = {"num_workers": 3, "chunk_size": 2, "log_every": 5, "save_every": 7}
    evaluation = {"batch_size": 3, "queries_in_report": 1}
    changes = {"trainer": trainer, "evaluation": evaluation, "data_root": "/mnt"}
    compared.run("a-2", {"t->v": 0.5}, seed=2, **changes)
    compared.run("b", {"t->v": 0.5}, trainer={"learning_rate": 0.02})
    assert list(compared()["methods"]) == ["a", "b"]


@pytest.mark.parametrize(
    ("test", "methods"),
    [("/mnt/y/test.csv", ["a", "b"]), ("/mnt/ytest.csv", ["a-0", "a-1", "b"])],
    ids=["below the root", "beside it"],
)
def test_the_same_data_in_another_place_do_not_make_another_method(compared, test, methods):
    """Of a config all is resolved: what was ``${data_root}/test.csv`` is a path of its own."""
    data = {"only": {"test": "/x/list.csv"}, "films": ["/x"], "test": "/x//test.csv"}
    compared.run("a-0", {"t->v": 0.5}, seed=0, data_root="/x/", data=data)
    data = {"only": {"test": "/mnt/y/list.csv"}, "films": ["/mnt/y"], "test": test}
    compared.run("a-1", {"t->v": 0.5}, seed=1, data_root="/mnt/y", data=data)
    compared.run("b", {"t->v": 0.5}, model=OTHER)
    assert list(compared()["methods"]) == methods


def test_the_same_test_in_other_files_or_features_is_compared_with_a_warning(compared, capsys):
    compared.run("eao", {"t->v": 0.5}, read_from="test.pkl, resnet features")
    compared.run("eao-s3d", {"t->v": 0.4}, read_from="copy.pkl, s3d features", model=OTHER)
    comparison = compared()
    assert comparison["protocol"] == PROTOCOL  # and neither of the files
    assert comparison["methods"]["eao-s3d"]["data"] == ["copy.pkl, s3d features"]
    (warning,) = comparison["warnings"]
    assert "(eao: test.pkl, resnet features; eao-s3d: copy.pkl, s3d features)" in warning
    assert f"warning: {warning}" in capsys.readouterr().err
    compared.words.pop()
    compared.run("mcn", {"t->v": 0.4}, read_from="test.pkl, resnet features", model=OTHER)
    comparison = compared()
    assert comparison["protocol"].endswith("test.pkl, resnet features")
    assert comparison["warnings"] == []


@pytest.mark.parametrize(
    ("folders", "name"),
    [
        (["eao-0", "eao-1"], "eao"),
        (["eao", "eao-1"], "eao"),
        (["eao_seed10", "eao_seed11"], "eao"),
        (["eao/0", "eao/1"], "eao"),
        (["eao/seed0", "eao/seed1"], "eao"),
        (["first", "second"], "first, second"),
    ],
)
def test_a_method_is_named_by_what_its_folders_share(compared, folders, name):
    for seed, folder in enumerate(folders):
        compared.run(folder, {"t->v": 0.5}, seed=seed)
    compared.run("mcn", {"t->v": 0.5}, model=OTHER)
    assert list(compared()["methods"]) == [name, "mcn"]


def test_methods_whose_folders_have_one_name_go_by_their_paths(compared):
    paths = [
        compared.run("a/run", {"t->v": 0.5}),
        compared.run("b/run", {"t->v": 0.5}, model=OTHER),
    ]
    assert list(compared()["methods"]) == paths


def test_a_name_that_was_given_is_kept(compared):
    compared.run("a/run", {"t->v": 0.5}, name="mcn")
    two = compared.run("mcn", {"t->v": 0.5}, model=OTHER)
    assert list(compared()["methods"]) == ["mcn", two]


def test_seeds_are_drawn_as_well_as_clips(compared):
    """Seeds that find the same are one run; seeds that differ make the interval wider."""
    half = first(0.5)
    compared.run("one", {"t->v": half}, model={"num_heads": 8})
    for seed in range(3):
        compared.run(f"same-{seed}", {"t->v": half}, seed=seed)
        compared.run(f"apart-{seed}", {"t->v": first(0.2 + 0.3 * seed)}, seed=seed, model=OTHER)
    one, same, apart = (m["directions"]["t->v"] for m in compared()["methods"].values())
    assert same["R@1_interval"] == pytest.approx(one["R@1_interval"])
    assert same["difference"]["interval"] == [0, 0]
    assert apart["R@1"] == pytest.approx(50)
    low, high = apart["R@1_interval"]
    assert low < one["R@1_interval"][0] - 5 and high > one["R@1_interval"][1] + 5
    assert apart["difference"]["includes_zero"]


def test_fused_is_tested_against_the_late_averages_of_the_same_method(compared, capsys):
    """Over the same clips and seeds: each seed is 10 points better, so every draw of seeds is."""
    fused, late, tuned = (np.roll(first(s), 3) for s in (0.7, 0.5, 0.6))
    for seed in range(2):
        turn = 20 * seed
        ranks = {"t->va": fused, "t->v+a": late, "t->v+a (tuned)": tuned, "va->t": fused}
        compared.run(f"eao-{seed}", {w: np.roll(r, turn) for w, r in ranks.items()}, seed=seed)
    compared.run("mcn", {"t->v+a": 0.65, "t->v+a (tuned)": 0.4}, model=OTHER)
    compared.run("old", {"t->v+a": 0.65}, model={"num_heads": 8})
    comparison = compared()
    eao, mcn, old = comparison["methods"].values()
    assert [(p["direction"], p["against"]) for p in eao["rivals"]] == [
        ("t->va", "t->v+a"),
        ("t->va", "t->v+a (tuned)"),
    ]
    for pair, points in zip(eao["rivals"], (20, 10), strict=True):
        assert pair["difference"]["R@1"] == pytest.approx(points)
        assert pair["R@1"] - pair["R@1_against"] == pytest.approx(points)
        assert 0 < pair["difference"]["interval"][0] < points < pair["difference"]["interval"][1]
    assert mcn["rivals"] == old["rivals"] == []
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["eao", "t->va", "70.0", "t->v+a", "(tuned)", "60.0", "+10.0"] in [x[:7] for x in lines]
    page = (compared.folder / "out" / "comparison.html").read_text()
    assert "Fused against late average" in page


def test_a_method_that_does_not_fuse_is_stood_for_by_its_tuned_late_average(compared, capsys):
    compared.run("old", {"t->v+a": 0.65}, model={"num_heads": 8})
    compared.run("eao", {"t->va": 0.8, "t->v+a": 0.5, "t->v+a (tuned)": 0.6})
    compared.run("mcn", {"t->v+a": 0.3, "t->v+a (tuned)": 0.4}, model=OTHER)
    methods = compared(baseline="eao")["methods"]
    ways = {name: method["headline"]["direction"] for name, method in methods.items()}
    assert ways == {"old": "t->v+a", "eao": "t->va", "mcn": "t->v+a (tuned)"}
    assert methods["mcn"]["headline"]["difference"]["R@1"] == pytest.approx(-40)
    assert "t->va or t->v+a (tuned) or t->v+a" in (said := capsys.readouterr().out)
    assert "mcn (t->v+a (tuned))" in said


def test_differences_are_paired_by_the_names_of_queries(compared):
    """Written in another order, the same queries are found: no draw shows a difference."""
    ranks = random_ranks(SIZE, 0.5)
    ids = [f"clip{i}" for i in range(SIZE)]
    compared.run("one", {"t->v": ranks}, ids=ids)
    compared.run("two", {"t->v": ranks[::-1]}, ids=ids[::-1], model=OTHER)
    difference = compared()["methods"]["two"]["directions"]["t->v"]["difference"]
    assert difference == {"R@1": 0.0, "interval": [0.0, 0.0], "p": 1.0, "includes_zero": True}


def test_a_direction_that_a_method_lacks_is_a_dash_and_its_own_way_is_compared(compared, capsys):
    compared.run("eao", {"t->va": 0.8, "t->v+a": 0.5, "t->v": 0.4})
    compared.run("mcn", {"t->v": 0.4, "t->v+a": 0.6}, model=OTHER)
    comparison = compared()
    assert comparison["directions"] == ["t->v", "t->va", "t->v+a"]
    eao, mcn = comparison["methods"].values()
    assert "t->va" not in mcn["directions"]
    assert (eao["headline"]["direction"], mcn["headline"]["direction"]) == ("t->va", "t->v+a")
    assert mcn["headline"]["difference"]["R@1"] == pytest.approx(-20)
    assert mcn["directions"]["t->v+a"]["difference"]["R@1"] == pytest.approx(10)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    place = next(i for i, line in enumerate(lines) if line[:2] == ["t->va", "eao"])
    assert lines[place + 1] == ["mcn", *["-"] * 9]


def test_nothing_is_tested_where_the_baseline_lacks_the_direction(compared):
    compared.run("mcn", {"t->v+a": 0.6})
    compared.run("eao", {"t->va": 0.8}, model=OTHER)
    eao = compared()["methods"]["eao"]
    assert "difference" not in eao["directions"]["t->va"]
    assert eao["headline"]["difference"]["R@1"] == pytest.approx(20)


def test_a_query_that_a_direction_lacks_is_a_miss(compared):
    """Each of two runs could ask another half of the clips, and found all of it."""
    every = {"v->a": np.ones(20), "t->v": first(1.0)}
    compared.run("one", every, asked={"v->a": list(range(20))})
    compared.run("two", every, asked={"v->a": list(range(20, 40))}, model=OTHER)
    one, two = (m["directions"]["v->a"] for m in compared()["methods"].values())
    assert one["R@1"] == two["R@1"] == 50
    assert 30 < one["R@1_interval"][0] < 45 and 55 < one["R@1_interval"][1] < 70
    # What one finds more, two finds less, so the interval is twice as wide.
    low, high = two["difference"]["interval"]
    assert low == pytest.approx(2 * (50 - one["R@1_interval"][1]))
    assert high == pytest.approx(2 * (50 - one["R@1_interval"][0]))


def test_clips_that_only_count_are_misses_that_are_drawn_too(compared):
    """All of 40 clips are found, of 50 that count: some draws have more misses than others."""
    compared.run("one", {"t->v": np.ones(SIZE)}, counted=50)
    compared.run("two", {"t->v": np.ones(SIZE)}, counted=50, model=OTHER)
    row = compared()["methods"]["two"]["directions"]["t->v"]
    assert row["R@1"] == 80
    assert row["R@1_interval"][0] < 74 and 85 < row["R@1_interval"][1] < 100
    assert row["difference"]["interval"] == [0.0, 0.0]


@pytest.mark.parametrize("named", [True, False], ids=["own names", "the name of the clip"])
def test_clips_are_drawn_with_all_their_captions(compared, capsys, named):
    """All four captions of a clip are found or none: an interval as of 25 queries, not of 100."""
    shows = np.repeat(np.arange(25), 4).tolist()
    ids = [f"x{i}" for i in range(100)] if named else [f"clip{clip}" for clip in shows]
    together = np.where(np.array(shows) < 10, 1.0, 9.0)
    alone = np.where(np.arange(25) < 10, 1.0, 9.0)
    ranks = {"t->v": together, "v->t": alone}
    compared.run("one", ranks, shows=shows, ids=ids)
    compared.run("two", ranks, shows=shows, ids=ids, model=OTHER)
    comparison = compared()
    rows = comparison["methods"]["one"]["directions"]
    assert (rows["t->v"]["queries"], rows["v->t"]["queries"]) == (100, 25)
    assert rows["t->v"]["R@1_interval"] == pytest.approx(rows["v->t"]["R@1_interval"])
    assert "25 clips with replacement, each with all its queries" in comparison["test"]
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    guesses = {line[0]: float(line[-2]) for line in lines if line[1:2] == ["one"]}
    assert guesses == {"t->v": 4.0, "v->t": 4.0}  # one of 25 clips, 4 of 100 captions


def test_rows_by_cosine_stand_apart_and_marked(compared, capsys):
    compared.run("eao", {"t->v": 0.5})
    compared.run("mcn", {"t->v": 0.4}, by_cosine={"t->v": first(0.6)}, model=OTHER)
    comparison = compared()
    assert comparison["methods"]["mcn"]["by_cosine"]["t->v"]["R@1"] == pytest.approx(60)
    assert comparison["methods"]["eao"]["by_cosine"] == {}
    plain, cosine = capsys.readouterr().out.split("the same by cosine")
    assert "(cos)" not in plain
    assert "mcn (cos)  60.0" in cosine
    assert "mcn (cos)" in (compared.folder / "out" / "comparison.html").read_text()


def test_the_table_has_chance_ceiling_and_cost(compared, capsys):
    ceiling = {"t->v": {"R@1": 91.3}}
    compared.run("eao", {"t->v": 0.5, "t->a": 0.1}, ceiling=ceiling)
    cost = {"training_seconds": None, "peak_memory_bytes": 3 * 2**20}
    compared.run("mcn", {"t->v": 0.4, "t->a": 0.2}, model=OTHER, ceiling=ceiling, cost=cost)
    compared()
    output = capsys.readouterr()
    lines = [line.split() for line in output.out.splitlines()]
    assert next(line[-2:] for line in lines if line[:2] == ["t->v", "eao"]) == ["2.5", "91.3"]
    assert next(line[-2:] for line in lines if line[:2] == ["t->a", "eao"]) == ["2.5", "-"]
    costs = lines[next(i for i, line in enumerate(lines) if line[:2] == ["method", "seeds"]) :]
    assert costs[1] == ["eao", "1", "1,000", "0.5", "60", "1,024", "640", "1", "2", "cpu"]
    assert costs[2] == ["mcn", "1", "1,000", "0.5", "-", "3", "640", "1", "2", "cpu"]
    assert "warning" not in output.err
    page = (compared.folder / "out" / "comparison.html").read_text()
    for said in ("with the validation and the checkpoints", "process in its whole life"):
        assert said in output.out and said in page


def test_a_difference_whose_interval_includes_0_is_marked(compared_with_picture, capsys):
    compared = compared_with_picture
    compared.run("eao", {"t->v": random_ranks(SIZE, 0.5, 0), "t->a": 0.1})
    compared.run("mcn", {"t->v": random_ranks(SIZE, 0.5, 1), "t->a": 0.8}, model=OTHER)
    comparison = compared()
    rows = comparison["methods"]["mcn"]["directions"]
    assert [rows[way]["difference"]["includes_zero"] for way in ("t->v", "t->a")] == [True, False]
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    marked = [line[8] for line in lines if line[:1] == ["mcn"] and len(line) > 11]
    assert [cell.endswith("~") for cell in marked] == [True, False]
    assert marked[1] == "+70.0"
    assert "~" in (compared.folder / "out" / "comparison.svg").read_text()


def test_the_baseline_is_chosen_by_folder_or_by_name(compared):
    compared.run("eao", {"t->v": 0.5})
    path = compared.run("mcn", {"t->v": 0.4}, name="MCN", model=OTHER)
    assert compared()["baseline"] == "eao"
    for wanted in (path, f"{path}/", "MCN"):
        comparison = compared(baseline=wanted)
        assert comparison["baseline"] == "MCN"
        assert "difference" not in comparison["methods"]["MCN"]["directions"]["t->v"]
        row = comparison["methods"]["eao"]["directions"]["t->v"]
        assert row["difference"]["R@1"] == pytest.approx(10)


def test_numbers_of_training_clips_that_differ_are_a_warning(compared, capsys):
    compared.run("eao", {"t->v": 0.5}, cost={"device": "H100"})
    compared.run("mcn", {"t->v": 0.5}, cost={"training_clips": 1280}, model=OTHER)
    warnings = compared()["warnings"]
    assert "(eao: 640; mcn: 1,280)" in warnings[0]
    assert "(eao: H100; mcn: cpu)" in warnings[1]
    assert f"warning: {warnings[0]}" in capsys.readouterr().err
    assert "training clips seen differ" in (compared.folder / "out/comparison.html").read_text()


def test_what_decides_the_time_of_training_is_shown_and_warned_of(compared, capsys):
    compared.run("eao-0", {"t->v": 0.5}, seed=0)
    compared.run("eao-1", {"t->v": 0.5}, seed=1, cost={"processes": 2})
    compared.run("mcn", {"t->v": 0.5}, cost={"threads": 8}, model=OTHER)
    processes, threads = compared()["warnings"]
    assert processes.startswith("numbers of processes differ, so training times are not comp")
    assert processes.endswith("(eao: 1, 2; mcn: 1)")
    assert threads.endswith("(eao: 2; mcn: 8)")
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["eao", "2", *lines[-6][2:7], "1,", "2", "2", "cpu"] == lines[-6]


def test_costs_of_an_older_version_are_read(compared, capsys):
    compared.run("eao", {"t->v": 0.5})
    older = compared.run("mcn", {"t->v": 0.5}, model=OTHER)
    cost = {key: value for key, value in COST.items() if key not in ("processes", "threads")}
    with open(f"{older}/cost.json", "w") as file:
        json.dump(cost, file)
    assert compared()["warnings"] == []
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[-5][-4:] == ["640", "-", "-", "cpu"]


def test_json_is_what_is_shown_and_the_page_holds_the_picture(compared_with_picture, tmp_path):
    compared = compared_with_picture
    compared.run("eao", {"t->v": 0.5})
    compared.run("mcn", {"t->v": 0.5}, model=OTHER)
    comparison = compared(json_path=tmp_path / "own.json")
    out = tmp_path / "out"
    assert sorted(p.name for p in out.iterdir()) == [
        f"comparison.{kind}" for kind in ("html", "json", "svg")
    ]
    for file in (tmp_path / "own.json", out / "comparison.json"):
        assert json.loads(file.read_text()) == comparison
    assert (out / "comparison.svg").read_text() in (out / "comparison.html").read_text()


def test_the_page_fetches_nothing_and_no_name_becomes_markup(compared_with_picture):
    compared = compared_with_picture
    compared.run("eao", {"t->v": 0.5}, name=ATTACK, protocol=ATTACK, cost={"device": ATTACK})
    compared.run(f"x{ATTACK[:4]}", {"t->v": 0.5}, protocol=ATTACK, model=OTHER)
    assert list(compared()["methods"]) == [ATTACK, "x<img"]
    text = (compared.folder / "out" / "comparison.html").read_text()
    assert "<img src=x" not in text
    page = Page(text)
    assert not any("onerror" in attributes for _, attributes in page.elements)
    for _, attributes in page.elements:
        for name in ("src", "href"):
            assert attributes.get(name, "data:").startswith(("data:", "#"))
    assert page.count("svg") == 1


def test_the_page_begins_with_the_best_method_or_with_all_that_are(compared):
    compared.run("eao", {"t->va": 0.5})
    compared.run("mcn", {"t->v+a": 0.6}, model=OTHER)
    compared()
    page = compared.folder / "out" / "comparison.html"
    assert "<h1>mcn <span>60.0 %</span></h1>" in page.read_text()
    small = "Only 40 queries: one is 2.5 per cent."
    assert page.read_text().index(small) < page.read_text().index("60.0 %")
    compared.run("other", {"t->v+a": 0.6}, model={"num_heads": 8})
    compared()
    assert "<h1>mcn and other <span>60.0 %</span></h1>" in page.read_text()


def test_the_tool_compares_and_ends_a_mistake_in_one_line(compared, tool, monkeypatch, capsys):
    runs = [
        compared.run("eao", {"t->v": 0.5}),
        compared.run("mcn", {"t->v": 0.4}, model=OTHER),
    ]
    out = compared.folder / "out"
    code, output, errors = tool("tools/compare.py", *runs, "--out", out, "--baseline", runs[1])
    assert code == 0, errors
    assert "[+2.5, +20.0]" in output
    assert (out / "comparison.svg").exists()
    monkeypatch.setattr("sys.argv", ["tools/compare.py", runs[0]])
    with pytest.raises(SystemExit) as end:  # in this process: imports take seconds
        runpy.run_path(str(ROOT / "tools/compare.py"), run_name="__main__")
    output, errors = capsys.readouterr()
    assert (end.value.code, output) == (2, "")
    assert errors.count("\n") == 1 and "needs two or more" in errors
