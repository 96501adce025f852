"""Plots: gaps, repeats, many points, names, colours; the picture of a comparison."""

import ast
import math
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import matplotlib
import pytest

import fusion
from fusion.report import plots
from fusion.report.plots import (
    COLOURS,
    CYCLE,
    STYLE,
    bar_chart,
    comparison_figure,
    comparison_picture,
    learning_curves,
    thin_out,
)
from tests.report.compared import Compared
from tests.report.test_run_page import ATTACK, evaluation


def test_curves_survive_gaps_repeats_and_single_points():
    rows = [
        {"event": "train", "step": 1, "loss": math.nan},
        {"event": "train", "step": 2, "loss": 5.0},
        {"event": "train", "step": 2, "loss": 3.0},  # a resumed run repeats the step
        {"event": "train", "loss": 4.0},
        {"event": "note", "step": 3, "loss": 77.0},
    ]
    ((title, chart),) = learning_curves(rows)
    assert title == "Loss and its terms"
    assert ">loss  3<" in chart  # the last value
    assert "nan" not in chart
    assert learning_curves([]) == []


def test_long_curves_are_averaged_and_keep_their_end():
    curve = [(float(i), float(i % 2)) for i in range(10_000)]
    thin = thin_out(curve, 300)
    assert len(thin) <= 300
    assert thin[-1] == curve[-1]
    assert all(abs(y - 0.5) < 0.1 for _, y in thin[:-1])


def test_a_plot_is_the_same_each_time_and_in_the_colours_of_the_page():
    chart = bar_chart(evaluation())
    assert chart == bar_chart(evaluation())
    assert "var(--accent)" in chart and "var(--room)" in chart
    assert not any(colour in chart for colour in COLOURS.values())


def test_a_name_is_text_and_no_formula():
    rows = [{"event": "train", "step": step, "loss/$x_1$ & <b>": 1.0} for step in range(3)]
    ((_, chart),) = learning_curves(rows)
    assert ">$x_1$ &amp; &lt;b&gt;  1<" in chart


def test_plotting_and_templates_are_imported_where_they_are_used():
    """They take a third of a second, which no other command should wait for."""
    files = list(Path(fusion.__file__).parent.rglob("*.py"))
    assert len(files) > 30
    for path in files:
        body = ast.parse(path.read_text("utf-8")).body
        names = [one.name for node in body if isinstance(node, ast.Import) for one in node.names]
        names += [node.module for node in body if isinstance(node, ast.ImportFrom)]
        assert not {name.split(".")[0] for name in names} & {"matplotlib", "jinja2"}, path


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    compared = Compared(tmp_path_factory.mktemp("compared"))
    compared.run("eao-0", {"t->v": 0.5, "t->va": 0.8}, seed=0)
    compared.run("eao-1", {"t->v": 0.4, "t->va": 0.7}, seed=1)
    name = f"A name that is {ATTACK}"
    compared.run("mcn", {"t->v": 0.1, "t->v+a": 0.3}, name=name, model={"num_heads": 4})
    return compared()


@pytest.fixture(scope="module")
def figure(comparison):
    with matplotlib.rc_context(STYLE):
        figure = comparison_figure(comparison)
        figure.draw_without_rendering()
        yield figure


def bars(axes):
    return [bar for bar in axes.patches if bar.get_width() > 0]


def test_the_picture_has_a_panel_for_each_direction_that_any_method_has(figure):
    panels = figure.axes
    assert [axes.get_title(loc="left") for axes in panels] == [
        "text → video and audio", "t → v+a", "t → v",
    ]  # fmt: skip
    width = figure.bbox.width
    assert panels[0].bbox.width > 0.6 * width  # the headline is as wide as two panels
    assert all(axes.bbox.width < 0.5 * width for axes in panels[1:])
    assert [len(bars(axes)) for axes in panels] == [2, 1, 2]
    assert [len(axes.collections) for axes in panels] == [3, 1, 3]  # intervals, and seeds of one
    labels = [text.get_text() for text in panels[0].get_yticklabels()]
    assert labels == ["eao  t → va", f"A name that is {ATTACK}"[:19].rstrip() + "…  t → v+a"]
    assert "none" in [text.get_text() for text in panels[1].texts]


def test_nothing_of_the_picture_is_outside_of_it_or_in_the_way(figure):
    whole = figure.bbox
    for axes in figure.axes:
        most = axes.get_xlim()[1]  # labels beyond are not drawn
        ticks = [text for text in axes.get_xticklabels() if text.get_position()[0] <= most]
        for text in [*axes.texts, *axes.get_yticklabels(), *ticks]:
            box = text.get_window_extent()
            assert whole.x0 <= box.x0 and box.x1 <= whole.x1, text
            assert whole.y0 <= box.y0 and box.y1 <= whole.y1, text
        for other in figure.axes:
            assert axes is other or not axes.get_tightbbox().overlaps(other.get_tightbbox())
        for bar in bars(axes):
            for text in axes.texts:
                assert not bar.get_window_extent().overlaps(text.get_window_extent()), text


def test_a_longer_bar_is_a_higher_recall_on_the_scale_of_its_panel(figure):
    assert [bar.get_width() for bar in bars(figure.axes[0])] == pytest.approx([75, 30])
    assert figure.axes[0].get_xlim()[0] == 0


def test_the_picture_is_readable_in_light_and_dark_by_itself(comparison):
    picture = str(comparison_picture(comparison))
    svg = ElementTree.fromstring(picture)
    assert svg.tag == "{http://www.w3.org/2000/svg}svg"
    light, dark = picture.split("prefers-color-scheme: dark", 1)
    used = {name for name in COLOURS if f"var({name})" in picture}
    assert {"--paper", "--ink", "--c0", "--c1"} <= used | (
        {"--c0"} if "--accent" in used else set()
    )
    assert all(f"{name}:" in light and f"{name}:" in dark for name in used)
    assert len(CYCLE) == 8


def test_every_colour_of_the_page_has_a_value_of_its_own():
    """The colours of a picture are found by their values and replaced by names."""
    assert len(set(plots.COLOURS.values())) == len(plots.COLOURS)
