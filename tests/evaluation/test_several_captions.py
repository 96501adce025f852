"""Clips with several captions: the naive loop, and what a table says of them."""

import dataclasses
import re

import numpy as np
import pytest
import torch

from fusion.data.captions.table import Caption
from fusion.data.datasets.dataset import ClipSet
from fusion.evaluation.embed import Embedded, keep_complete
from fusion.evaluation.metrics import (
    chance,
    chance_among_captions,
    interval_over_clips,
    interval_over_queries,
    retrieval_metrics,
)
from fusion.evaluation.ranking import ranks_of_pairs
from fusion.evaluation.retrieval import rank_directions, retrieval_table
from fusion.modalities import directions
from fusion.report.tables import format_table
from fusion.tasks.retrieval.gallery import find_examples
from fusion.tasks.retrieval.result import describe_evaluation
from tests.report.test_run_page import RECALLS, evaluation, written

SHOWS = [0, 0, 0, 1, 2, 2, 3, 4, 4, 4, 4, 5]
NAMES = ("text", "video", "audio")
COMBINATIONS = ["t", "v", "a", "tv", "ta", "va"]


def several_captions(missing=(), shows=SHOWS, seed=0):
    """Clips with one to four captions; what is not text is the same for all items of a clip."""
    generator, shows = torch.Generator().manual_seed(seed), torch.tensor(shows)
    embeddings = {}
    for combination in COMBINATIONS:
        rows = torch.randn(len(shows), 4, generator=generator)
        rows[4], rows[9] = rows[1], rows[3]  # ties with another clip and within a clip
        rows[8] = rows[7]
        embeddings[combination] = rows if "t" in combination else rows[shows]
    present = {name: torch.ones(len(shows)).bool() for name in NAMES}
    for place, name in missing:
        present[name][place if name == "text" else shows == shows[place]] = False
    ids = tuple(f"item{i}" for i in range(len(shows)))
    return Embedded(ids, embeddings, present, shows)


def naive_ranks(embedded, direction):
    """One query at a time, one candidate at a time."""

    def vector(side, i):
        return torch.stack([embedded.embeddings[part][i] for part in side]).mean(dim=0)

    def has(side, i):
        return any(embedded.present[name][i] for name in NAMES if name[0] in "".join(side))

    def rows(side):
        able = [
            i
            for i in range(len(embedded.ids))
            if has(direction.query, i) and has(direction.gallery, i)
        ]
        if "t" in "".join(side):
            return able
        clips = [int(embedded.shows[i]) for i in able]
        return [i for place, i in enumerate(able) if clips[place] not in clips[:place]]

    ranks = []
    for asked in rows(direction.query):
        query = torch.nn.functional.normalize(vector(direction.query, asked), dim=-1)
        own, others = [], []
        for found in rows(direction.gallery):
            candidate = torch.nn.functional.normalize(vector(direction.gallery, found), dim=-1)
            is_own = embedded.shows[asked] == embedded.shows[found]
            (own if is_own else others).append(round(float(query @ candidate), 5))
        better = sum(score > max(own) for score in others)
        ranks.append(1 + better + sum(score == max(own) for score in others) / 2)
    return ranks


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("missing", [[], [(1, "text"), (4, "video"), (6, "audio"), (11, "text")]])
def test_the_best_caption_of_a_clip_counts_as_in_a_naive_loop(missing, seed):
    embedded = several_captions(missing, seed=seed)
    ranked = rank_directions(embedded)
    assert len(ranked) == 18
    for direction in directions(NAMES):
        expected = naive_ranks(embedded, direction)
        assert ranked[str(direction)].ranks.tolist() == expected, direction


@pytest.mark.parametrize("block", [1, 5, 100])
def test_blocks_change_nothing_where_clips_have_several_captions(block):
    queries, gallery = torch.randn(2, 12, 5, generator=torch.Generator().manual_seed(1))
    owners = torch.tensor(SHOWS), torch.tensor(SHOWS)
    whole = ranks_of_pairs(queries, gallery, owners=owners)
    assert ranks_of_pairs(queries, gallery, block, owners).tolist() == whole.tolist()


def test_one_caption_for_each_clip_is_ranked_as_before():
    embedded = several_captions(shows=range(12))
    plain = Embedded(embedded.ids, embedded.embeddings, embedded.present)
    for name, ranked in rank_directions(embedded).items():
        assert ranked.ranks.tolist() == rank_directions(plain)[name].ranks.tolist()
        assert ranked.rows.equal(ranked.candidates)
    assert embedded.captions is None
    assert retrieval_table(rank_directions(embedded), 12)["t->v"]["queries"] == 12


def test_a_model_that_embeds_all_alike_is_no_better_than_chance():
    embedded = several_captions(shows=np.repeat(range(6), 3))
    alike = {name: torch.ones(18, 4) for name in COMBINATIONS}
    ranked = rank_directions(Embedded(embedded.ids, alike, embedded.present, embedded.shows))
    assert set(ranked["t->v"].ranks) == {3.5}
    assert set(ranked["v->t"].ranks) == {1 + 15 / 2}


def test_a_table_says_how_many_queries_and_candidates_each_direction_had():
    embedded = several_captions([(1, "text"), (4, "audio")])
    table = retrieval_table(rank_directions(embedded), 6, embedded.captions)
    counts = {name: (row["queries"], row["gallery"]) for name, row in table.items()}
    assert counts["t->v"] == (12, 6)
    assert counts["v->t"] == (6, 11)  # one caption is empty
    assert counts["v->a"] == (6, 5)
    assert counts["tv->a"] == (12, 5)
    assert counts["v->ta"] == (6, 12)
    found = rank_directions(embedded)["t->v"]
    assert len(found.ranks) == 11
    assert table["t->v"]["R@1"] == pytest.approx(100 * (found.ranks == 1).sum() / 12)
    interval = interval_over_clips(found.ranks, found.clips.numpy(), np.array(SHOWS))
    assert table["t->v"]["R@1_interval"] == interval
    result = describe_evaluation("test", "several", embedded, table, None, 6)
    assert result["clips"]["missing"] == {"text": 1, "video": 0, "audio": 1}
    lines = format_table(result).splitlines()
    assert lines[0] == "small     only 6 clips: one is 16.7 per cent"
    assert "6 clips with 12 captions" in lines[1]
    assert next(line.split()[-2:] for line in lines if "t->v " in line) == ["12", "6"]


def test_clips_that_are_left_out_go_with_all_their_captions():
    gallery = keep_complete(several_captions([(4, "audio")]), ["audio"])
    assert gallery.shows.tolist() == [number for number in SHOWS if number != 2]
    assert gallery.num_clips == 5


def test_the_interval_is_over_clips_because_captions_of_a_clip_go_together():
    """All twenty captions of a clip are found or none: so many independent draws there are."""
    clips = np.repeat(np.arange(100), 20)
    ranks = np.where(clips < 50, 1.0, 9.0)
    low, high = interval_over_clips(ranks, clips, clips)
    alone = interval_over_queries(np.where(np.arange(100) < 50, 1.0, 9.0), 100)
    assert (low, high) == pytest.approx(alone, abs=1.5)
    narrow = interval_over_queries(ranks, len(ranks))
    assert narrow[1] - narrow[0] < (high - low) / 3


def test_captions_that_could_not_be_asked_are_misses_in_the_interval():
    captions = np.repeat(np.arange(50), 2)
    low, high = interval_over_clips(np.ones(50), captions[::2], captions)
    assert low == high == 50.0


@pytest.mark.parametrize("sizes", [[1] * 9, [1] * 10, [3] * 5, [1, 2, 4, 4, 1]])
def test_chance_among_captions_is_that_of_random_embeddings(sizes):
    captions = np.repeat(np.arange(len(sizes)), sizes)
    expected = chance_among_captions(captions)
    generator = torch.Generator().manual_seed(0)
    owners = torch.arange(len(sizes)), torch.from_numpy(captions)
    drawn = [
        ranks_of_pairs(
            torch.randn(len(sizes), 8, generator=generator),
            torch.randn(len(captions), 8, generator=generator),
            owners=owners,
        )
        for _ in range(1500)
    ]
    measured = retrieval_metrics(np.concatenate(drawn))
    for name, value in expected.items():
        assert measured[name] == pytest.approx(value, rel=0.1), name
    if set(sizes) == {1}:
        assert expected == pytest.approx(chance(len(sizes)))


class Captioned(ClipSet):
    def __init__(self, captions):
        self.captions, self.folder = captions, None


def test_captions_of_one_window_show_one_clip():
    windows = [("x", 0.0, 1.0), ("x", 1.0, 2.0), ("x", 0.0, 1.0), ("y", 0.0, 1.0)]
    clips = Captioned([Caption(*window, f"text {i}") for i, window in enumerate(windows)])
    assert clips.shows == [0, 1, 0, 2]


def test_the_report_shows_each_clip_once_and_finds_the_right_one():
    embedded = several_captions()
    items = tuple(Caption(f"video{n}", 0.0, 1.0, f"text {i}") for i, n in enumerate(SHOWS))
    embedded, ranked = dataclasses.replace(embedded, items=items), rank_directions(embedded)
    examples = find_examples(embedded, "t->va", ranked["t->va"], None, number=12, best=3)
    found = []
    for example in examples:
        asked = SHOWS[int(example.text.split()[1])]
        results = [clip for _, clip in example.cards[:3]]
        assert len({clip.clip_id for clip in results}) == 3
        (right,) = [clip for _, clip in example.cards if clip.is_right]
        assert SHOWS[int(right.clip_id.removeprefix("item"))] == asked
        assert (len(example.cards) == 3) == any(clip.is_right for clip in results)
        (rank,) = re.findall(r"rank ([\d.]+)|first", example.verdict[1])
        found.append(float(rank.rstrip(",.") or 1))
    assert sorted(found) == sorted(ranked["t->va"].ranks)


def test_the_gallery_shows_a_tied_rank_as_it_is_and_clips_in_the_order_of_exact_scores():
    """The first two clips tie."""
    generator = torch.Generator().manual_seed(0)
    clips = torch.nn.functional.normalize(torch.randn(6, 4, generator=generator), dim=-1)
    clips[1] = clips[0] * 3
    embeddings = {"t": clips.clone(), "v": clips}
    present = {name: torch.ones(6).bool() for name in ("text", "video")}
    items = tuple(Caption(f"video{i}", 0.0, 1.0, f"text {i}") for i in range(6))
    names = tuple(f"item{i}" for i in range(6))
    embedded = Embedded(names, embeddings, present, items=items)
    ranked = rank_directions(embedded)["t->v"]
    examples = find_examples(embedded, "t->v", ranked, None, number=6, best=6)
    tied = [example for example in examples if example.text in ("text 0", "text 1")]
    assert [example.verdict for example in tied] == [("near", "right clip at rank 1.5")] * 2
    for example in examples:
        (label,) = [label for label, clip in example.cards if clip.is_right]
        assert float(label) == ranked.ranks[int(example.text.split()[1])]
        scores = [clip.score for _, clip in example.cards]
        assert scores == sorted(scores, reverse=True)


def test_chance_is_told_for_clips_and_for_captions(tmp_path):
    clips = {"total": 600, "captions": 12_000, "missing": {"text": 0}, "rule": "left out"}
    several = evaluation(clips=clips, chance_among_captions={**RECALLS, "MedR": 408.0})
    text = written(tmp_path, results=[several])
    assert "chance, captions" in text
    assert "408.0" in text
    assert "<td>12000</td>" in text
    assert "chance, captions" not in written(tmp_path, results=[evaluation()])
