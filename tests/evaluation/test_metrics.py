import itertools
import json

import numpy as np
import pytest
import torch

from fusion.evaluation.metrics import (
    RECALLS,
    chance,
    chance_among_captions,
    expected_recalls,
    interval_over_queries,
    retrieval_metrics,
)
from fusion.evaluation.ranking import Places, places_of_pairs, places_of_scores, ranks_of_pairs
from tests.evaluation.naive import ranks_of_matrix
from tests.golden_cases import GOLDEN

PUBLISHED = json.loads((GOLDEN / "metrics.json").read_text())
NAMES = {"MedR": "MedR", "MeanR": "MeanR", "geometric_mean_R1-R5-R10": "GeoMean"}
NAMES |= {f"R{k}": f"R@{k}" for k in (1, 5, 10, 50)}


@pytest.mark.parametrize("case", [case for case in PUBLISHED if case.endswith("averaging")])
def test_published_metrics(case):
    matrix, num_queries, _ = case.split(".")
    similarities = torch.from_numpy(np.load(GOLDEN / "metrics.npz")[matrix])
    total = None if num_queries == "None" else int(num_queries)
    own = torch.eye(*similarities.shape) > 0
    ranks = places_of_scores(similarities, torch.tensor(0.0), own).ranks
    metrics = retrieval_metrics(ranks, total)
    for published, value in PUBLISHED[case].items():
        assert metrics[NAMES[published]] == pytest.approx(value, rel=1e-12), published


def test_the_published_cases_are_all_there():
    assert len([case for case in PUBLISHED if case.endswith("averaging")]) == 4


@pytest.mark.parametrize("block", [1, 7, 1000])
def test_blocks_change_nothing(block):
    generator = torch.Generator().manual_seed(0)
    queries, gallery = torch.randn(2, 40, 8, generator=generator)
    similarities = torch.nn.functional.cosine_similarity(queries[:, None], gallery[None], dim=-1)
    expected = ranks_of_matrix(similarities)
    assert ranks_of_pairs(queries, gallery, block).tolist() == expected


def test_a_model_that_embeds_all_clips_alike_is_no_better_than_chance():
    same = torch.ones(9, 3)
    assert set(ranks_of_pairs(same, same).tolist()) == {5.0}


def test_a_model_that_embeds_98_clips_alike_is_at_chance_with_ties_broken_at_random():
    same = torch.ones(98, 4)
    recalls = expected_recalls(places_of_pairs(same, same), 98)
    assert [round(recalls[f"R@{k}"], 2) for k in RECALLS] == [1.02, 5.10, 10.20, 51.02]
    guess = chance(98)
    assert recalls == pytest.approx({name: guess[name] for name in recalls})


def test_captions_that_are_all_alike_are_at_chance_among_captions():
    """Clips have one, two and three captions; the best of a clip's captions counts."""
    captions = np.repeat(np.arange(60), np.arange(60) % 3 + 1)
    owners = torch.arange(60), torch.from_numpy(captions)
    places = places_of_pairs(torch.ones(60, 4), torch.ones(len(captions), 4), owners=owners)
    guess = chance_among_captions(captions)
    expected = expected_recalls(places, 60)
    assert expected == pytest.approx({name: guess[name] for name in expected})


@pytest.mark.parametrize("better", [0, 3, 4])
@pytest.mark.parametrize("tied", [0, 1, 2, 5])
@pytest.mark.parametrize("own", [1, 2])
def test_expected_recalls_are_the_share_of_all_orders_of_the_tied_rows(better, tied, own):
    """The twin enumerates every order."""
    orders = [*itertools.permutations([True] * own + [False] * tied)]
    places = [better + order.index(True) + 1 for order in orders]
    row = Places(*map(np.array, ([better + 1 + tied / 2], [tied], [own])))
    recalls = expected_recalls(row, 1)
    for k in RECALLS:
        share = 100 * sum(place <= k for place in places) / len(places)
        assert recalls[f"R@{k}"] == pytest.approx(share), k


def test_without_ties_expected_recalls_are_the_plain_ones():
    queries, gallery = torch.randn(2, 80, 8, generator=torch.Generator().manual_seed(0))
    places = places_of_pairs(queries, gallery)
    plain = retrieval_metrics(places.ranks, 90)
    expected = expected_recalls(places, 90)
    assert expected == pytest.approx({name: plain[name] for name in expected})


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_f16_embeddings_that_are_not_finite_are_refused(poison):
    queries = torch.eye(4)
    queries[2, 1] = poison
    with pytest.raises(ValueError, match="not finite"):
        ranks_of_pairs(queries, torch.eye(4))


def test_memory_is_a_block_not_a_matrix(monkeypatch):
    shapes = []
    matmul = torch.Tensor.__matmul__
    monkeypatch.setattr(
        torch.Tensor, "__matmul__", lambda a, b: shapes.append((len(a), b.shape[1])) or matmul(a, b)
    )
    embeddings = torch.randn(300, 4)
    ranks_of_pairs(embeddings, embeddings, block=16)
    assert max(rows for rows, _ in shapes) == 16


def test_clips_that_are_missing_count_as_misses():
    metrics = retrieval_metrics(np.array([1.0, 1.0, 7.0]), num_queries=4)
    assert metrics["R@1"] == 50
    assert metrics["R@10"] == 75
    assert metrics["MedR"] == 1
    assert metrics["MeanR"] == 3


def test_no_rank_at_all_is_an_error():
    with pytest.raises(ValueError, match="cannot be evaluated"):
        retrieval_metrics(np.zeros(0))


def test_the_interval_covers_the_recall_and_narrows_with_more_queries():
    few, many = (np.repeat([1.0, 9.0], n) for n in (50, 5000))
    low, high = interval_over_queries(few, len(few))
    assert low < 50 < high
    narrow = interval_over_queries(many, len(many))
    assert narrow[1] - narrow[0] < (high - low) / 5


def test_chance_is_that_of_random_embeddings():
    generator = torch.Generator().manual_seed(0)
    ranks = np.concatenate(
        [ranks_of_pairs(*torch.randn(2, 60, 16, generator=generator)) for _ in range(100)]
    )
    measured, expected = retrieval_metrics(ranks), chance(60)
    for name, value in expected.items():
        assert measured[name] == pytest.approx(value, rel=0.1), name
