"""Curves of missing modalities, against clips that really lack them."""

import dataclasses
import functools

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from fusion.data.datasets.dataset import collate
from fusion.evaluation import missing_table
from fusion.evaluation.embed import embed
from fusion.evaluation.metrics import RECALLS, interval_over_clips, is_hit
from fusion.evaluation.missing import ORDERS, SHARES, Chosen, missing_curves, order_of_clips
from fusion.evaluation.missing_table import (
    DIFFERENCES,
    WAYS,
    curves_of_arrays,
    curves_to_arrays,
    describe_curves,
)
from fusion.evaluation.ranking import ranks_of_pairs
from fusion.evaluation.retrieval import rank_directions, retrieval_table
from fusion.modalities import parse_direction
from fusion.models import EAO
from tests.evaluation.test_several_captions import several_captions

NAMES = ("text", "video", "audio")
COUNT = 23
MISSING = {(2, "audio"), (4, "video"), (7, "text"), (9, "audio"), (9, "video")}
CASES = [("audio", "t->va"), ("video", "t->va"), ("text", "v->ta"), ("audio", "va->t")]


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    """Intervals are drawn 500 times: the tests prove of what, not how finely."""
    draw = functools.partial(missing_table.draw_recalls, draws=500)
    monkeypatch.setattr(missing_table, "draw_recalls", draw)


def model():
    torch.manual_seed(0)
    widths = {name: {"dim": 4} for name in NAMES}
    made = EAO(widths, ["t", "v", "a", "tv", "ta", "va"], 16, 8, num_heads=2).eval()
    torch.nn.init.normal_(made.masking_token)
    return made


def items(missing=MISSING):
    generator = torch.Generator().manual_seed(3)
    made = []
    for i in range(COUNT):
        center = torch.randn(4, generator=generator)
        item = {"id": f"clip{i}"}
        for name in NAMES:
            tokens = center + 0.7 * torch.randn(1 + i % 3, 4, generator=generator)
            item[name] = tokens[: 0 if (i, name) in missing else None]
        made.append(item)
    return made


def embedded(given=None, network=None):
    return embed(network or model(), given or items(), Accelerator(cpu=True), 8)


def without(modality, combinations, given=None):
    emptied = [item | {modality: item[modality][:0]} for item in given or items()]
    return embedded(emptied, Chosen(model(), combinations)).embeddings


def curves(modality, direction, clips=None, gone=None, **how):
    way = parse_direction(direction, NAMES)
    sides = [side for side in (*way.query, *way.gallery) if modality[0] in side]
    gone = gone or without(modality, [*sides, modality[0]])
    return missing_curves(
        clips or embedded(), gone, modality, way, how.pop("counted", COUNT), **how
    )


def losing(modality, share, seed):
    """The clips without a modality, the plain way: a list that is cut."""
    having = [i for i in range(COUNT) if (i, modality) not in MISSING]
    order = order_of_clips([f"clip{i}" for i in having], seed)
    lost = {having[place] for place in order[: int(share * len(having) / 100 + 0.5)]}
    return items(MISSING | {(i, modality) for i in lost})


@functools.cache
def embedded_alone(number, *names):
    """Embed a clip of which only some modalities are there."""
    clip = {m: x if m in ("id", *names) else x[:0] for m, x in items(())[number].items()}
    return model()(collate([clip]).inputs)


def left_out(clips, way):
    """Embed each clip alone, by what it has: fused, and as the mean of single embeddings."""
    rows = {"fused": {}, "late average": {}}
    alone = [
        embedded_alone(number, *(name for name in NAMES if len(clip[name])))
        for number, clip in enumerate(clips)
    ]
    for side in (*way.query, *way.gallery):
        has = ["".join(n[0] for n in NAMES if n[0] in side and len(clip[n])) for clip in clips]
        pairs = list(zip(alone, has, strict=True))
        rows["fused"][side] = [one[part][0] if part else None for one, part in pairs]
        rows["late average"][side] = [
            sum(one[x][0] for x in part) / len(part) if part else None for one, part in pairs
        ]
    return rows


def naive_recalls(rows, way):
    """R@k of queries and candidates of which some are None; others count as misses."""
    pairs = zip(rows[way.query[0]], rows[way.gallery[0]], strict=True)
    both = [pair for pair in pairs if all(side is not None for side in pair)]
    ranks = ranks_of_pairs(*(torch.stack(side) for side in zip(*both, strict=True)))
    return [100 * is_hit(ranks, k).sum() / COUNT for k in RECALLS]


@torch.no_grad()
@pytest.mark.parametrize(("modality", "direction"), CASES)
def test_curves_are_those_of_clips_that_really_lack_the_modality(modality, direction):
    way, share = parse_direction(direction, NAMES), 30
    found = describe_curves(curves(modality, direction))["ways"]
    expected = {name: [] for name in WAYS}
    late = "->".join("+".join(side) for side in direction.split("->"))
    for seed in range(ORDERS):
        clips = losing(modality, share, seed)
        table = retrieval_table(rank_directions(embedded(clips)), COUNT)
        for kind, row in (("fused", table[direction]), ("late average", table[late])):
            expected[f"{kind}, masking token"].append([row[f"R@{k}"] for k in RECALLS])
        for kind, rows in left_out(clips, way).items():
            expected[f"{kind}, left out"].append(naive_recalls(rows, way))
    place = SHARES.index(share)
    for name, values in expected.items():
        got = [found[name][f"R@{k}"][place] for k in RECALLS]
        assert got == pytest.approx(np.mean(values, axis=0), abs=1e-9), name
    assert len({tuple(found[name]["R@1"]) for name in WAYS}) > 1


def test_the_ends_of_the_curves_are_rows_of_the_table():
    complete = items(missing=())
    clips, gone = embedded(complete), without("audio", ["va", "a"], complete)
    ways = describe_curves(curves("audio", "t->va", clips, gone))["ways"]
    table = retrieval_table(rank_directions(clips), COUNT)
    for name, row in ways.items():
        first = table["t->va" if "fused" in name else "t->v+a"]
        assert [row[f"R@{k}"][0] for k in RECALLS] == [first[f"R@{k}"] for k in RECALLS]
        if "left out" in name:
            assert row["R@1"][-1] == table["t->v"]["R@1"]


def test_clips_without_anything_left_are_misses():
    alone = {(i, "video") for i in range(COUNT)}
    clips = embedded(items(alone))
    gone = without("audio", ["va", "a"], items(alone))
    for row in describe_curves(curves("audio", "t->va", clips, gone))["ways"].values():
        assert row["R@50"] == pytest.approx(
            [100 * (COUNT - int(s * COUNT / 100 + 0.5)) / COUNT for s in SHARES]
        )


def test_clips_that_lack_the_modality_anyway_are_not_taken():
    found = curves("audio", "t->va")
    assert found.has == COUNT - 2
    assert len(found.names) == COUNT == len(found.queries)


def test_a_clip_that_is_missing_at_one_share_is_missing_at_the_next():
    names = [f"clip{i}" for i in range(50)]
    order = order_of_clips(names, 0).tolist()
    assert sorted(order) == list(range(50))
    assert order != order_of_clips(names, 1).tolist()
    # The order of two clips depends on them alone, whatever else is in the test.
    some = order_of_clips(names[:20], 0).tolist()
    assert some == [place for place in order if place < 20]


def test_a_model_that_cannot_fuse_has_the_late_average_alone():
    clips = embedded()
    single = {c: rows for c, rows in clips.embeddings.items() if len(c) == 1}
    single = dataclasses.replace(clips, embeddings=single)
    result = describe_curves(curves("audio", "t->va", single))
    assert list(result["ways"]) == ["late average, masking token", "late average, left out"]
    assert list(result["differences"]) == ["masking token - left out, late average"]
    nothing = dataclasses.replace(clips, embeddings={"t": clips.embeddings["t"]})
    with pytest.raises(ValueError, match=r"t->va cannot be evaluated: .* neither t and va nor"):
        curves("audio", "t->va", nothing)


def test_what_counts_but_is_not_searched_is_a_miss():
    plain, more = (
        describe_curves(curves("audio", "t->va", counted=counted)) for counted in (COUNT, COUNT + 7)
    )
    for name, row in plain["ways"].items():
        shrunk = [value * COUNT / (COUNT + 7) for value in row["R@5"]]
        assert more["ways"][name]["R@5"] == pytest.approx(shrunk)


@pytest.mark.parametrize(
    ("modality", "direction"),
    [("audio", "t->va"), ("text", "v->ta"), ("audio", "v->ta"), ("video", "tv->a")],
)
def test_clips_with_several_captions_lose_a_modality_as_a_whole(modality, direction):
    """Embeddings are arbitrary, so each share is checked with the plain ranking of its items."""
    wordless = {(place, "text") for place in (0, 1, 3, 7, 8, 9)}
    clips = several_captions(wordless | {(5, "audio")})
    way = parse_direction(direction, NAMES)
    side = next(s for s in (*way.query, *way.gallery) if modality[0] in s)
    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(len(clips.ids), 4, generator=generator)
    gone = {side: rows if "t" in side and modality != "text" else rows[clips.shows]}
    gone[modality[0]] = rows[clips.shows]
    found = missing_curves(clips, gone, modality, way, clips.num_clips, clips.captions)
    is_there = [bool(clips.present[modality][clips.shows == clip].any()) for clip in range(6)]
    having = [clip for clip in range(6) if is_there[clip]]
    first = [clips.ids[clips.shows.tolist().index(clip)] for clip in having]
    for place, share in enumerate(SHARES):
        values = []
        for seed in range(ORDERS):
            order = order_of_clips(first, seed)
            lost = [having[p] for p in order[: int(share * len(having) / 100 + 0.5)]]
            taken = torch.isin(clips.shows, torch.tensor(lost, dtype=torch.int64))
            mixed = {c: clips.embeddings[c].clone() for c in (*way.query, *way.gallery)}
            mixed[side][taken] = gone[side][taken]
            present = {n: flags & ~(taken & (n == modality)) for n, flags in clips.present.items()}
            changed = dataclasses.replace(clips, embeddings=mixed, present=present)
            ranked = {direction: rank_directions(changed)[direction]}
            row = retrieval_table(ranked, clips.num_clips, clips.captions, intervals=False)
            values.append([row[direction][f"R@{k}"] if row else 0.0 for k in RECALLS])
        result = found.found["fused, masking token"][:, place].sum(axis=0) / found.queries.sum()
        assert 100 * result == pytest.approx(np.mean(values, axis=0)), share


def test_dot_products_count_lengths():
    clips, gone = embedded(), without("audio", ["va", "a"])
    long = {c: rows * torch.linspace(1, 9, COUNT)[:, None] for c, rows in clips.embeddings.items()}
    gone = {c: rows * torch.linspace(1, 9, COUNT)[:, None] for c, rows in gone.items()}
    by_dot = dataclasses.replace(clips, embeddings=long, similarity="dot")
    found = describe_curves(curves("audio", "t->va", by_dot, gone))["ways"]
    table = retrieval_table(rank_directions(by_dot), COUNT)
    assert found["fused, masking token"]["R@5"][0] == table["t->va"]["R@5"]
    assert found["fused, left out"]["R@5"][-1] == pytest.approx(
        table["t->v"]["R@5"], abs=100 / COUNT + 1e-9
    )
    cosine = describe_curves(curves("audio", "t->va"))["ways"]
    assert found != cosine


def test_intervals_and_differences_are_those_of_the_bootstrap_over_clips():
    made = curves("audio", "t->va")
    result = describe_curves(made)
    assert list(result["differences"]) == list(DIFFERENCES)
    for name, (one, other) in DIFFERENCES.items():
        row = result["differences"][name]
        ours, theirs = (result["ways"][way]["R@1"] for way in (one, other))
        assert row["R@1"] == pytest.approx(np.subtract(ours, theirs))
        assert all(low - 1e-9 <= mid <= high + 1e-9 for mid, (low, high) in _pairs(row))
    for row in result["ways"].values():
        assert len(row["R@1_interval"]) == len(SHARES)
    clips = embedded(items(missing=()))
    gone = without("audio", ["va", "a"], items(missing=()))
    row = describe_curves(curves("audio", "t->va", clips, gone))["ways"]["fused, left out"]
    ranks = rank_directions(clips)["t->va"].ranks
    numbers = np.arange(COUNT)
    plain = interval_over_clips(ranks, numbers, numbers)
    assert row["R@1_interval"][0] == pytest.approx(plain, abs=100 / COUNT)


def _pairs(row):
    return zip(row["R@1"], row["interval"], strict=True)


def test_arrays_hold_the_curves():
    made = curves("audio", "t->va")
    read = curves_of_arrays({"ids": np.zeros(3), **curves_to_arrays("audio", made)})
    assert describe_curves(read["audio"]) == describe_curves(made)


def test_a_modality_that_no_clip_has_cannot_be_taken_away():
    silent = items({(i, "audio") for i in range(COUNT)})
    with pytest.raises(ValueError, match="no clip of the test has audio"):
        curves("audio", "t->va", embedded(silent))
