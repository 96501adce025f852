"""The report: everything is in it, nothing is fetched, and no input breaks it."""

import base64
import dataclasses
import hashlib
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from fusion.data.media.encode import write_clip
from fusion.report.gallery import GalleryResult, make_gallery
from fusion.report.plots import bar_chart
from fusion.report.run_page import headline, write_report
from fusion.report.tables import format_table
from fusion.tasks.retrieval.gallery import choose_examples, show_query
from fusion.tasks.retrieval.result import retrieval_layout

ATTACK = "<img src=x onerror=alert(1)>"
FUSED = ["t->v", "t->a", "v->t", "v->a", "a->t", "a->v"]
FUSED += ["t->va", "v->ta", "a->tv", "va->t", "ta->v", "tv->a"]
LATE = ["t->v+a", "v->t+a", "a->t+v", "v+a->t", "t+a->v", "t+v->a"]
DIRECTIONS = FUSED + LATE
RECALLS = {"R@1": 40.0, "R@5": 60.0, "R@10": 70.0, "R@50": 90.0, "MedR": 2.0, "MeanR": 9.5}


class Page(HTMLParser):
    """The elements of a page, with their attributes; checks that they are closed."""

    VOID = frozenset(["meta", "link", "img"])

    def __init__(self, text):
        super().__init__()
        self.elements, self.open = [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):  # <line/> within an SVG
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def count(self, tag, kind=None):
        return sum(
            t == tag and (not kind or kind in a.get("class", "").split()) for t, a in self.elements
        )


def evaluation(**changes):
    scores = {
        d: {**RECALLS, "GeoMean": 55.2, "R@1_interval": [37.0, 43.0], "gallery": 588}
        for d in DIRECTIONS
    }
    scores["t->va"]["R@1"] = 81.2
    result = {
        "set": "test",
        "protocol": "Every clip asks once.",
        "gallery": 600,
        "clips": {"total": 600, "missing": {"text": 0, "video": 12}, "rule": "left out, a miss"},
        "directions": scores,
        "chance": {**RECALLS, "R@1": 1 / 6},
        "ceiling": {d: {**RECALLS, "R@1": 96.7} for d in DIRECTIONS},
    }
    result = {k: v for k, v in {**result, **changes}.items() if v is not None}
    return described(result)


def described(result):
    return result | {"table": retrieval_layout(result).as_json()}


def history(steps=20):
    train = [
        {"event": "train", "step": s, "loss": 9 - s / 10, "loss/t|va": 4.0, "learning_rate": 1e-3}
        for s in range(steps)
    ]
    return [*train, {"event": "validation", "step": steps, "t->va R@1": 41.0, "v->t R@1": 12.0}]


@pytest.fixture(scope="module", autouse=True)
def charts_drawn_once():
    """Most pages here have the same bars."""
    charts = {}

    def draw_once(result):
        key = repr(result)
        if key not in charts:
            charts[key] = bar_chart(result)
        return charts[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fusion.report.run_page.bar_chart", draw_once)
        yield


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """A second of a bright square that moves to the right, with a tone."""
    path = tmp_path_factory.mktemp("media") / "film.mp4"
    frames = np.full((10, 48, 64, 3), 60, np.uint8)
    for t, frame in enumerate(frames):
        frame[16:32, 4 * t : 4 * t + 16] = 240
    tone = np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000).astype(np.float32) / 2
    write_clip(path, frames, 10, tone, 16_000)
    return path


def found(path, name="clip", *, right=False, start=0.0, caption="a square moves"):
    return GalleryResult(name, caption, path, start, 1.0, 0.5, right)


def written(tmp_path, **changes):
    path = tmp_path / "report.html"
    given = {
        "title": "A run",
        "results": [evaluation()],
        "metrics": [],
        "gallery": [],
        "facts": {"Seed": "0"},
    }
    write_report(path, **{**given, **changes})
    return path.read_text("utf-8")


def test_every_direction_has_a_row_and_text_comes_first(tmp_path):
    text = written(tmp_path)
    rows = re.findall(r'<span class="row">(.*?)</span></th>', text)
    assert sorted(rows) == sorted(d.replace("->", " → ") for d in DIRECTIONS)
    assert all(row.startswith("t →") for row in rows[:4])
    assert all(row.endswith("→ t") for row in rows[4:8])
    for said in [
        "Every clip asks once.",
        "600 clips",
        "12 without video",
        "left out, a miss",
        "chance",
        "Seed",
    ]:
        assert said in text


def test_page_is_well_formed_and_has_bars_beside_ceilings_and_curves(tmp_path):
    page = Page(written(tmp_path, metrics=history()))
    assert page.count("figure", "bars") == 1
    assert page.count("i", "room") == len(DIRECTIONS)
    assert page.count("figure", "chart") == 4
    drawn = [a.get("style", "") for tag, a in page.elements if tag == "path"]
    assert drawn.count("fill: var(--accent)") == drawn.count("fill: var(--room)") == 4


def test_headline_holds_the_score_against_ceiling_and_chance():
    text = headline(evaluation())
    assert "t → va" in text
    assert "81.2 %" in text
    assert "84&nbsp;%</b> of what a perfect perceiver could reach" in text
    assert "Chance is 0.17" in text


def test_a_small_test_says_so_before_it_says_a_percentage(tmp_path):
    small = described(evaluation(counted=11, gallery=11))
    said = "only 11 queries: one is 9.1 per cent"
    assert headline(small).index(said.capitalize()) < headline(small).index("%")
    assert format_table(small).startswith(f"small     {said}\n")
    assert "only" not in headline(described(evaluation(counted=100)))
    assert "only" not in format_table(described(evaluation(counted=100)))


def test_page_fetches_nothing_and_runs_only_its_own_script(tmp_path, film):
    gallery = [show_query("a square", 1, [found(film, right=True)])]
    text = written(tmp_path, metrics=history(), gallery=gallery)
    assert "http://" not in text and "https://" not in text
    page = Page(text)
    for tag, attributes in page.elements:
        for name in ("src", "href", "poster", "srcset", "data"):
            assert attributes.get(name, "data:").startswith(("data:", "#")), tag
    policy = next(a["content"] for t, a in page.elements if "http-equiv" in a)
    script = re.search("<script>(.*?)</script>", text, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert "default-src 'none'" in policy
    assert f"script-src 'sha256-{digest}'" in policy
    assert "url(" not in text and "@import" not in text


def test_nothing_from_outside_becomes_markup(tmp_path, film):
    result = evaluation(protocol=ATTACK, set=ATTACK)
    result["directions"][f"t->{ATTACK}"] = RECALLS
    result["ceiling"][f"t->{ATTACK}"] = RECALLS
    result = described(result)
    result["clips"]["missing"][ATTACK] = 1
    query = show_query(ATTACK, 1, [found(film, f'"{ATTACK}', right=True, caption=ATTACK * 20)])
    text = written(
        tmp_path,
        title=ATTACK,
        results=[result],
        metrics=[
            {"event": "train", "step": 1, f"loss/{ATTACK}": 1.0},
            {"event": "validation", "step": 1, f"t->{ATTACK} R@1": 1.0},
        ],
        gallery=[query],
        facts={ATTACK: ATTACK},
        gallery_note=ATTACK,
    )
    assert "<img src=x" not in text
    assert not any("onerror" in attributes for _, attributes in Page(text).elements)


def test_an_interrupted_report_leaves_the_old_one(tmp_path, monkeypatch):
    old = written(tmp_path)

    def fails(*_):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fails)
    with pytest.raises(OSError, match="disk full"):
        written(tmp_path, title="Another")
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    assert (tmp_path / "report.html").read_text("utf-8") == old


def test_what_is_absent_is_left_out(tmp_path):
    text = written(tmp_path, results=[evaluation(ceiling=None, chance=None)], metrics=[], facts={})
    assert "perceiver" not in text
    assert not any(name in text for name in ["Learning curves", "Gallery</h2>", "This run"])
    assert "Not evaluated" in written(tmp_path, results=[])
    assert "No direction" in written(
        tmp_path, results=[described({"set": "empty", "directions": {}})]
    )


def test_numbers_that_do_not_exist_are_dashes(tmp_path):
    scores = {"t->va": {"R@1": math.nan, "MedR": None}, "x->yz": {}}
    text = written(tmp_path, results=[evaluation(directions=scores, ceiling=None)])
    assert "nan" not in re.sub("<style>.*</style>", "", text, flags=re.DOTALL).lower()
    assert "x → yz" in text


def test_two_sets_have_a_section_each(tmp_path):
    text = written(tmp_path, results=[evaluation(), evaluation(set="validation")])
    assert len(re.findall("<h2>Retrieval: (test|validation)</h2>", text)) == 2


def test_right_clip_is_framed_and_its_rank_told(film):
    results = [found(film, f"clip {i}", right=i == 3) for i in range(1, 6)]
    page = make_gallery([show_query("a square", 3, results)], 10**6)
    assert re.findall(r'class="card( right)?"><p class="place"><b>(\d)', page) == [
        ("", "1"), ("", "2"), (" right", "3"), ("", "4"), ("", "5"),
    ]  # fmt: skip
    assert "right clip at rank 3" in page


def test_right_clip_that_was_not_found_is_shown_apart_with_its_rank(film):
    query = show_query("a square", 291, [found(film)], right=found(film, "lost", right=True))
    page = make_gallery([query], 10**6)
    assert "right clip at rank 291, not among the best 1" in page
    assert '<li class="card right"><p class="place"><b>291</b>' in page


def test_query_without_text_shows_its_clip(film):
    query = dataclasses.replace(show_query("", 1, [found(film)]), clip=found(film, "asks"))
    page = make_gallery([query], 10**6)
    assert page.index("<b>query</b>") < page.index(">asks<") < page.index("<b>1</b>")
    assert 'class="ask"' not in page


def test_players_that_do_not_fit_are_left_out_and_pictures_stay(film):
    clips = [found(film, f"clip {i}", start=i / 10, right=i == 2) for i in range(3)]
    query = [show_query("a square", 3, clips)]
    everything, nothing = make_gallery(query, 10**6), make_gallery(query, 0)
    assert everything.count("<video") == 3
    assert nothing.count("<video") == 0
    assert nothing.count('<img class="screen"') == everything.count('<img class="screen"') == 3
    assert "0 of 3 clips can be played" in nothing
    budget = len(everything.encode()) - 1000
    some = make_gallery(query, budget)
    assert 0 < some.count("<video") < 3
    assert len(some.encode()) <= budget
    assert "<video" in some.split('class="card right"')[1]  # the right one goes last


def test_whole_page_keeps_to_its_size(tmp_path, film):
    gallery = [show_query("a square", 1, [found(film, start=i / 20) for i in range(5)])]
    size = len(written(tmp_path, gallery=gallery).encode())
    smaller = written(tmp_path, gallery=gallery, page_bytes=size - 5000)
    assert len(smaller.encode()) <= size - 5000


@pytest.mark.parametrize(
    ("frames", "wave", "said"),
    [
        (np.zeros((10, 48, 64, 3), np.uint8), np.full(16_000, 0.5, np.float32), "no picture"),
        (None, np.full(16_000, 0.5, np.float32), "no picture"),
        (np.full((10, 48, 64, 3), 200, np.uint8), np.zeros(16_000, np.float32), "no sound"),
        (np.full((10, 48, 64, 3), 200, np.uint8), None, "no sound"),
    ],
    ids=["black", "without picture", "silent", "without sound"],
)
def test_what_cannot_be_seen_or_heard_is_marked(tmp_path, frames, wave, said):
    write_clip(tmp_path / "film.mp4", frames, 10, wave, 16_000)
    page = make_gallery([show_query("x", 1, [found(tmp_path / "film.mp4")])], 10**6)
    assert said in page
    assert ("no picture" in page) != ("no sound" in page)
    assert page.count("<video") + page.count("<audio") == 1


def test_file_that_cannot_be_read_is_a_placeholder(tmp_path, film, caplog):
    (tmp_path / "cut.mp4").write_bytes(film.read_bytes()[:500])
    paths = [tmp_path / "gone.mp4", tmp_path / "cut.mp4"]
    page = make_gallery([show_query("x", 1, [found(path) for path in paths])], 10**6)
    assert page.count("cannot be read") == 2
    assert "gone.mp4" in caplog.text
    assert "no picture" in make_gallery([show_query("x", 1, [found(None)])], 10**6)


def test_long_caption_folds_but_stays_whole(film):
    caption = "word " * 100
    page = make_gallery([show_query("x", 1, [found(film, caption=caption)])], 10**6)
    assert caption in page
    assert "<summary>word word" in page


def test_examples_are_spread_from_best_to_worst():
    ranks = np.r_[np.ones(80), np.arange(2, 22)]
    chosen = choose_examples(ranks, 6)
    assert chosen == choose_examples(ranks, 6)
    assert chosen == [0, 20, 40, 59, 79, 99]
    assert ranks[chosen].tolist() == [1, 1, 1, 1, 1, 21]


def test_examples_are_at_most_as_many_as_there_are_queries():
    assert choose_examples(np.array([3.0, 1.0]), 8) == [1, 0]
    assert choose_examples(np.zeros(0), 8) == []
