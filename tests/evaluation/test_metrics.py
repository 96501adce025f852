import json

import numpy as np
import pytest
import torch

from fusion.evaluation.metrics import chance, interval_over_queries, retrieval_metrics
from fusion.evaluation.ranking import ranks_of_pairs, ranks_of_scores
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
    ranks = ranks_of_scores(similarities, torch.tensor(0.0), torch.eye(*similarities.shape) > 0)
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


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_embeddings_that_are_not_finite_are_refused(poison):
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
