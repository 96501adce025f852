"""Tuned late averages: what they fit, what they choose, and their ranks against naive loops."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch

from fusion.evaluation import late_fusion
from fusion.evaluation.calibration import fit_weights
from fusion.evaluation.embed import Embedded
from fusion.evaluation.late_fusion import (
    TUNED,
    WAYS,
    late_directions,
    plain_name,
    rank_late,
    rank_tuned,
    tune,
)
from fusion.evaluation.late_scores import ScoreSum, fit_average, fit_sums
from fusion.evaluation.retrieval import rank_directions
from fusion.tasks.retrieval.tuning import add_tuned_rows
from tests.evaluation.naive import ranks_of_matrix

NAMES = {"t": "text", "v": "video", "a": "audio", "d": "depth"}


def clips(count=60, seed=0, noise=(0.3, 0.9, 1.6), shows=None, missing=(), similarity="cosine"):
    """Clips whose modalities say the same, the later ones less clearly."""
    draw, letters = torch.Generator().manual_seed(seed), "tvad"[: len(noise)]
    shows = torch.arange(count) if shows is None else torch.tensor(shows)
    said = torch.randn(int(shows.max()) + 1, 6, generator=draw)
    rows = {}
    for letter, size in zip(letters, noise, strict=True):
        heard = said + size * torch.randn(said.shape, generator=draw)
        rows[letter] = torch.nn.functional.normalize(heard[shows], dim=-1)
        if letter == "t":  # captions of a clip differ
            rows[letter] = rows[letter] + 0.2 * torch.randn(len(shows), 6, generator=draw)
        if similarity == "dot":
            rows[letter] = rows[letter] * (0.5 + torch.rand(len(shows), 1, generator=draw))
    if similarity == "dot":
        rows["v"], rows["a"] = rows["v"][shows], rows["a"][shows]
    present = {NAMES[x]: torch.ones(len(shows), dtype=torch.bool) for x in letters}
    for letter, numbers in missing:
        present[NAMES[letter]][torch.isin(shows, torch.tensor(numbers))] = False
    ids = tuple(f"{seed}-{i}" for i in range(len(shows)))
    return Embedded(ids, rows, present, shows, similarity)


def direction(name, embedded):
    return late_directions(embedded)[name]


def unit(rows):
    return rows / rows.norm(dim=-1, keepdim=True)


def naive_score(fitted, embedded, query, gallery, i, j):
    """The score of item i as a query with item j as a candidate."""
    rows = {x: values.double() for x, values in embedded.embeddings.items()}
    if embedded.similarity == "cosine":
        parts = {x: unit(values) for x, values in rows.items()}
    else:
        parts = rows
    there = lambda x, k: bool(embedded.present[NAMES[x]][k])  # noqa: E731
    if isinstance(fitted, ScoreSum):
        total = 0.0
        for q, g in itertools.product(query, gallery):
            if there(q, i) and there(g, j):
                total += float(fitted.curves[f"{q}->{g}"]((parts[q][i] @ parts[g][j])[None])[0])
        return total
    sides = []
    for side, k in ((query, i), (gallery, j)):
        kept = [x for x in side if there(x, k)]
        weights = [fitted.weights.get(x, 1.0) for x in kept]
        weights = weights if sum(weights) else [1.0] * len(kept)
        average = sum(w * rows[x][k] for w, x in zip(weights, kept, strict=True)) / sum(weights)
        sides.append(average if embedded.similarity == "dot" else unit(average))
    scale, offset = fitted.scales["".join(x for x in gallery if there(x, j))]
    return scale * float(sides[0] @ sides[1]) - offset


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
@pytest.mark.parametrize("way", ["t->v+a", "v+a->t", "v->t+a"])
def test_ranks_are_those_of_a_naive_loop_also_where_sound_is_missing(way, similarity):
    where = [("a", [2, 5, 9]), ("v", [7])]
    validation = clips(30, similarity=similarity)
    test = clips(20, seed=1, missing=where, similarity=similarity)
    late, plain = direction(way, test), rank_directions(test)[way]
    query, gallery = late.query, late.gallery
    fits = [fit_average(validation, late), *fit_sums(validation, late)]
    found = []
    for fitted in fits:
        ranked = rank_late(test, late, plain, fitted)
        scores = [
            [naive_score(fitted, test, query, gallery, int(i), int(j)) for j in plain.candidates]
            for i in plain.rows
        ]
        assert ranked.ranks.tolist() == ranks_of_matrix(torch.tensor(scores))
        found.append(ranked.ranks.tolist())
    assert len(set(map(tuple, found))) > 1


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_clips_that_differ_by_rounding_tie(similarity):
    validation, test = (clips(30, seed, similarity=similarity) for seed in range(2))
    for letter in "va":
        test.embeddings[letter][8] = test.embeddings[letter][3] * (1 + 1e-7)
    late, plain = direction("t->v+a", test), rank_directions(test)["t->v+a"]
    for fitted in [fit_average(validation, late), *fit_sums(validation, late)]:
        assert rank_late(test, late, plain, fitted).places.tied[[3, 8]].tolist() == [1, 1]


def test_the_weights_of_an_average_are_the_best_of_a_grid():
    validation = clips(40)
    late = direction("t->v+a", validation)
    t, v, a = (unit(validation.embeddings[x].double()) for x in "tva")
    losses = {}
    for sixteenths in range(17):
        average = unit((sixteenths * v + (16 - sixteenths) * a) / 16)
        scores = (t @ average.T).numpy()
        losses[sixteenths / 16] = fit_weights([scores], np.eye(40, dtype=bool))[1]
    fitted = fit_average(validation, late)
    assert fitted.weights == {"v": (best := min(losses, key=losses.get)), "a": 1 - best}
    assert 0.5 < best < 1
    assert set(fitted.scales) == {"v", "a", "va"}


def test_a_clip_without_sound_is_neither_pulled_up_nor_down():
    """Its score is that of its picture, as a log-likelihood ratio: 0 in the mean of the ratios."""
    validation = clips(80)
    late = direction("t->v+a", validation)
    silent = clips(80, missing=[("a", list(range(0, 80, 2)))])
    plain = rank_directions(silent)["t->v+a"]
    fits = [fit_average(validation, late), *fit_sums(validation, late)]
    for fitted in fits:
        scores = torch.cat(
            [s for s, _ in fitted.blocks(silent, late, plain.rows, plain.candidates)]
        )
        others = scores.exp().masked_fill(torch.eye(80, dtype=torch.bool), torch.nan)
        for half in (others[:, ::2], others[:, 1::2]):
            assert 0.3 < float(half.nanmean()) < 3


def test_the_way_that_finds_most_on_validation_is_chosen_and_ranks_the_test():
    validation, test = clips(60), clips(50, seed=1)
    tuned, ranked = tune(validation), rank_directions(test)
    rows = rank_tuned(test, ranked, tuned)
    assert set(tuned) == {"t->v+a", "v->t+a", "a->t+v", "v+a->t", "t+a->v", "t+v->a"}
    assert list(rows)[-4:] == ["t+a->v", f"t+a->v{TUNED}", "v+a->t", f"v+a->t{TUNED}"]
    for way, one in tuned.items():
        assert tuple(one.recalls) == WAYS
        best = max(one.recalls.values())
        assert one.chosen == next(w for w in WAYS if one.recalls[w] == best)
        fitted = one.fitted.get(one.chosen)
        expected = (
            rank_late(test, direction(way, test), ranked[way], fitted) if fitted else ranked[way]
        )
        assert rows[way + TUNED].ranks.tolist() == expected.ranks.tolist()
    assert any(one.chosen != "equal" for one in tuned.values())


def test_of_ways_that_find_as_much_the_first_is_chosen():
    perfect = clips(30, noise=(0.001, 0.001, 0.001))
    tuned = tune(perfect)
    assert {one.chosen for one in tuned.values()} == {"equal"}
    rows = rank_tuned(perfect, ranked := rank_directions(perfect), tuned)
    assert rows[f"t->v+a{TUNED}"] is ranked["t->v+a"]


def test_a_bad_modality_loses_its_weight_and_the_tuned_row_is_better():
    validation, test = clips(60, noise=(0.2, 0.5, 30)), clips(60, seed=1, noise=(0.2, 0.5, 30))
    tuned = tune(validation)
    one = tuned["t->v+a"]
    assert one.chosen in ("weighted", "summed")
    assert one.weights["weighted"]["a"] < 0.2
    rows = rank_tuned(test, rank_directions(test), tuned)
    assert (rows[f"t->v+a{TUNED}"].ranks == 1).mean() > (rows["t->v+a"].ranks == 1).mean() + 0.1
    assert one.as_json()["said"].startswith(f"{one.chosen} (")


def test_plain_rows_do_not_change():
    test = clips(50, seed=1, missing=[("a", [1, 2])])
    ranked = rank_directions(test)
    rows, section = add_tuned_rows(test, ranked, "test", clips(40))
    assert set(rows) - set(ranked) == {f"{way}{TUNED}" for way in late_directions(test)}
    assert all(rows[way] is ranked[way] for way in ranked)
    assert section["late_fusion"]["clips"] == 40
    assert add_tuned_rows(test, ranked, "test", None) == (ranked, {})


def test_pairs_of_the_test_are_not_read_to_fit():
    validation, test = clips(30), clips(50, seed=1)
    shuffled = dict(test.embeddings)
    shuffled["t"] = shuffled["t"][torch.randperm(50, generator=torch.Generator().manual_seed(0))]
    found = []
    for one in (test, dataclasses.replace(test, embeddings=shuffled)):
        rows, section = add_tuned_rows(one, rank_directions(one), "test", validation)
        found.append((section, (rows[f"t->v+a{TUNED}"].ranks == 1).mean()))
    assert found[0][0] == found[1][0]
    assert found[0][1] > found[1][1] + 0.2


def test_a_test_of_the_same_clips_is_not_tuned_on(caplog):
    same = clips(40)
    rows, section = add_tuned_rows(same, rank_directions(same), "test", same)
    assert section == {} and not any(row.endswith(TUNED) for row in rows)
    assert "test: no tuned late averages: it has all clips of validation" in caplog.text


def test_clips_with_several_captions():
    shows = sorted(list(range(30)) * 2 + [3, 3, 8])
    validation, test = clips(shows=shows), clips(seed=1, shows=shows)
    rows = rank_tuned(test, rank_directions(test), tune(validation))
    for way in ("t->v+a", "v+a->t", "v->t+a"):
        plain, tuned = rows[way], rows[way + TUNED]
        assert len(tuned.ranks) == len(plain.ranks) and tuned.by_caption == plain.by_caption
    assert len(rows[f"t->v+a{TUNED}"].ranks) == 63 and len(rows[f"v+a->t{TUNED}"].ranks) == 30
    assert (rows[f"v+a->t{TUNED}"].ranks == 1).mean() > 0.2


def test_too_few_clips_leave_the_average_as_it_is():
    one = tune(clips(4))["t->v+a"]
    assert (one.chosen, tuple(one.recalls), one.fitted) == ("equal", ("equal",), {})
    assert "only 4 clips to fit to, and 5 are needed" in one.as_json()["said"]
    silent = clips(40, missing=[("a", list(range(36)))])
    assert tune(silent)["t->v+a"].clips == 4
    assert tune(clips(40, missing=[("a", list(range(40)))]))["t->v+a"].chosen == "equal"


def test_of_many_clips_some_are_taken_at_even_distances(monkeypatch):
    monkeypatch.setattr(late_fusion, "MOST_PAIRS", 400)
    thin = late_fusion._thin(clips(60))
    assert thin.ids == tuple(f"0-{i}" for i in range(0, 60, 3))
    assert tune(clips(60))["t->v+a"].clips == 20


def test_four_modalities_are_tuned_on_both_sides(monkeypatch):
    validation = clips(30, noise=(0.3, 0.5, 0.7, 0.9))
    ways = {way: direction(way, validation) for way in ("t->v+a+d", "t+v->a+d")}
    monkeypatch.setattr(late_fusion, "late_directions", lambda _: ways)  # of 38
    both = tune(validation)["t+v->a+d"]
    assert set(both.weights["summed"]) == {"t->a", "t->d", "v->a", "v->d"}
    assert set(both.weights["weighted"]) == {"t", "v", "a", "d"}
    test = clips(15, seed=1, noise=(0.3, 0.5, 0.7, 0.9))
    late, plain = ways["t+v->a+d"], rank_directions(test)["t+v->a+d"]
    for fitted in both.fitted.values():
        scores = [
            [naive_score(fitted, test, late.query, late.gallery, i, j) for j in range(15)]
            for i in range(15)
        ]
        ranks = rank_late(test, late, plain, fitted).ranks.tolist()
        assert ranks == ranks_of_matrix(torch.tensor(scores))


def test_names_of_rows():
    assert plain_name("v+a->t (tuned)") == "v+a->t" == plain_name("v+a->t")
