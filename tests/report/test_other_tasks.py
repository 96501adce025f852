"""A result that says of itself that it is no retrieval: table, page and comparison read it."""

import dataclasses
import json

import numpy as np
import pytest

from fusion.commands.compare import compare
from fusion.report.gallery import GalleryItem, GalleryResult
from fusion.report.layout import FORMAT
from fusion.report.run_page import write_report
from fusion.report.runs import pack_scores
from fusion.report.tables import format_table
from tests.report.compared import OTHER, write_files
from tests.report.test_run_page import Page
from tests.tasks import toy

LAYOUT = dataclasses.replace(
    toy.LAYOUT,
    row="input",
    rows="inputs",
    names={"v": "video", "va": "video and audio"},
    groups={"Every input": ["v", "va"]},
    lead=["va", "Of the clips, 75.0 % are named rightly."],
    bars=["v", "va"],
    headline=["va"],
    headline_title="video and audio",
    headline_rule="the input of most modalities",
    pictured=["v"],
    tested="8 clips, 1 without audio",
)
NAMES = [f"clip{i}" for i in range(8)]


def result(hits):
    """A classifier of 8 clips that is right for these; all are among the first five."""
    rows = {
        row: {"top-1": 100 * float(np.mean(h)), "top-5": 100.0, "queries": 8}
        | {"top-1_interval": [10.0, 90.0]}
        for row, h in hits.items()
    }
    return {
        "format": FORMAT,
        "set": "test",
        "protocol": "every clip once",
        "protocol_parts": {"rule": "every clip once", "data": "folder"},
        "counted": 8,
        "clips": {"total": 8},
        "inputs": rows,
        "chance": {"top-1": 10.0, "top-5": 50.0},
        "ceiling": None,
        "table": LAYOUT.as_json(),
    }


def right(number):
    return (np.arange(8) < number).astype(float)


def test_a_terminal_shows_its_columns_and_rows():
    table = format_table(result({"v": right(4), "va": right(6)}))
    lines = [line.split() for line in table.splitlines()]
    assert ["input", "top-1", "[95", "%]", "top-5", "clips"] in lines
    assert ["va", "75.0", "[10.0,", "90.0]", "100.0", "8"] in lines
    assert ["chance", "10.0", "50.0"] in lines
    assert "8 clips, 1 without audio" in table


def test_a_page_shows_its_headline_rows_curves_and_gallery(tmp_path):
    clip = GalleryResult("clip1", "a cat", None, 0.0, 1.0, 0.9, True)
    write_report(
        tmp_path / "report.html",
        title="cats",
        results=[result({"v": right(4), "va": right(6)})],
        metrics=[{"event": "validation", "step": step, "va top-1": 70.0} for step in (1, 2)],
        gallery=[GalleryItem("a cat", ("hit", "named rightly"), [("cat 0.9", clip)])],
        facts={},
    )
    text = (tmp_path / "report.html").read_text("utf-8")
    for said in [
        "va top-1 <span>75.0 %</span>",
        "Classification: test",
        "named rightly",
        "<b>cat 0.9</b>",
        "Validation top-1 (%): every input",
        "Chance is 10.0",
    ]:
        assert said in text, said
    assert "Retrieval" not in text and "R@1" not in text
    assert Page(text).count("figure", "bars") == 1


@pytest.fixture
def runs(tmp_path):
    paths = []
    for name, hits, changes in [("a", right(4), {}), ("b", right(7), {"model": OTHER})]:
        rows = {"va": (hits, np.arange(8))}
        packed = pack_scores(NAMES, np.arange(8), ["cat"] * 8, rows)
        paths.append(write_files(tmp_path / name, result({"va": hits}), packed, **changes))
    return paths


def test_two_classifiers_are_compared_by_the_same_paired_test(runs, tmp_path, capsys):
    comparison = compare(runs, tmp_path / "out")
    row = comparison["methods"]["b"]["inputs"]["va"]
    assert row["top-1"] == row["top-1_of_seeds"][0] == 87.5
    assert row["difference"]["top-1"] == 37.5
    assert not row["difference"]["includes_zero"]
    assert "+37.5" in capsys.readouterr().out
    page = (tmp_path / "out" / "comparison.html").read_text("utf-8")
    assert "<h1>b <span>87.5 %</span></h1>" in page
    assert "R@1" not in page and "direction" not in page.split("</style>")[-1]


def test_scores_of_another_run_are_noticed(runs, tmp_path):
    file = tmp_path / "b" / "ranks.npz"
    file.write_bytes((tmp_path / "a" / "ranks.npz").read_bytes())
    with pytest.raises(ValueError, match="disagree about va"):
        compare(runs, tmp_path / "out")


def test_another_task_is_not_compared(runs, tmp_path):
    other = json.loads((tmp_path / "b" / "results.json").read_text())
    other["table"]["row"] = "question"
    (tmp_path / "b" / "results.json").write_text(json.dumps(other))
    with pytest.raises(ValueError, match="'top-1 of each input' against 'top-1 of each question'"):
        compare(runs, tmp_path / "out")
