"""Dual softmax and QB-Norm: the whole matrix as the papers have it, and rows that stay apart."""

import json

import numpy as np
import pytest
import torch

from fusion.evaluation.embed import Embedded
from fusion.evaluation.ranking import ranks_of_pairs
from fusion.evaluation.rescoring import dual_softmax, qb_norm, rescored_tables
from fusion.evaluation.retrieval import rank_directions, retrieval_table
from fusion.evaluation.settings import Settings
from fusion.report.tables import NOT_COMPARABLE, format_table
from fusion.tasks.retrieval.result import describe_evaluation
from tests.evaluation.naive import ranks_of_matrix
from tests.evaluation.test_several_captions import several_captions

BOTH = Settings(rescoring=["dual_softmax", "qb_norm"], qb_norm_bank=7)


def embeddings(count, seed=0, width=6):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def cosines(queries, gallery):
    unit = [torch.nn.functional.normalize(x, dim=-1) for x in (queries, gallery)]
    return (unit[0] @ unit[1].T).double()


def naive_dual_softmax(similarities, scale):
    return similarities * torch.softmax(scale * similarities, dim=0)


def naive_qb_norm(similarities, bank, scale):
    """Each query by itself; ``bank`` is the (B, M) matrix of the bank's similarities."""
    hubs = {int(row.argmax()) for row in bank}
    scores = similarities.clone()
    for i, row in enumerate(similarities):
        if int(row.argmax()) in hubs:
            scores[i] = (scale * row).exp() / (scale * bank).exp().sum(dim=0)
    return scores


@pytest.mark.parametrize("block", [1, 7, 1000])
@pytest.mark.parametrize("scale", [1.0, 20.0, 100.0])
def test_dual_softmax_is_that_of_the_whole_matrix(scale, block):
    queries, gallery = embeddings(30), embeddings(30, seed=1)
    rescore = dual_softmax(queries, gallery, scale, block)
    naive = naive_dual_softmax(cosines(queries, gallery), scale)
    torch.testing.assert_close(rescore(cosines(queries, gallery))[0], naive, rtol=1e-4, atol=1e-12)
    ranks = ranks_of_pairs(queries, gallery, block, rescore=rescore)
    assert ranks.tolist() == ranks_of_matrix(naive)
    assert ranks.tolist() != ranks_of_pairs(queries, gallery).tolist()


@pytest.mark.parametrize("block", [1, 7, 1000])
@pytest.mark.parametrize("scale", [1.0, 20.0])
def test_qb_norm_is_that_of_the_whole_matrix(scale, block):
    queries, gallery, bank = embeddings(30), embeddings(30, seed=1), embeddings(12, seed=2)
    naive = naive_qb_norm(cosines(queries, gallery), cosines(bank, gallery), scale)
    hubs = cosines(bank, gallery).argmax(dim=1)
    touched = torch.isin(cosines(queries, gallery).argmax(dim=1), hubs)
    assert 0 < touched.sum() < 30  # both kinds of queries occur
    rescore = qb_norm(bank, gallery, scale, block)
    ranks = ranks_of_pairs(queries, gallery, block, rescore=rescore)
    assert ranks.tolist() == ranks_of_matrix(naive)
    assert ranks.tolist() != ranks_of_pairs(queries, gallery).tolist()


def test_weights_too_small_for_float32_are_no_ties():
    queries, gallery = embeddings(40, width=3), embeddings(40, seed=1, width=3)
    ranks = ranks_of_pairs(queries, gallery, rescore=dual_softmax(queries, gallery, 100.0))
    assert all(rank == int(rank) for rank in ranks)


def test_memory_is_a_block_not_a_matrix(monkeypatch):
    shapes = []
    matmul = torch.Tensor.__matmul__
    monkeypatch.setattr(
        torch.Tensor, "__matmul__", lambda a, b: shapes.append((len(a), b.shape[1])) or matmul(a, b)
    )
    x = embeddings(300)
    for rescore in (dual_softmax(x, x, 100.0, block=16), qb_norm(x, x, 20.0, block=16)):
        ranks_of_pairs(x, x, block=16, rescore=rescore)
    assert max(rows for rows, _ in shapes) == 16


def embedded(count, seed):
    combinations = ["t", "v", "a", "tv", "ta", "va"]
    rows = {c: embeddings(count, seed + i) for i, c in enumerate(combinations)}
    present = {name: torch.ones(count).bool() for name in ("text", "video", "audio")}
    return Embedded(tuple(map(str, range(count))), rows, present)


def test_every_direction_is_rescored_with_its_own_queries():
    clips, bank = embedded(20, 0), embedded(9, 50)
    tables = rescored_tables(clips, BOTH, bank, 20, None)
    for direction, query, gallery in [("t->va", ["t"], ["va"]), ("v+a->t", ["v", "a"], ["t"])]:
        q, g, b = (
            torch.stack([e.embeddings[c] for c in side]).mean(dim=0)
            for e, side in ((clips, query), (clips, gallery), (bank, query))
        )
        similarities = cosines(q, g)
        naive = {
            "dual_softmax": naive_dual_softmax(similarities, 100.0),
            "qb_norm": naive_qb_norm(similarities, cosines(b, g), 20.0),
        }
        for way, scores in naive.items():
            row = tables[way]["directions"][direction]
            assert row["MeanR"] == np.mean(ranks_of_matrix(scores)), (way, direction)
            assert "R@1_interval" not in row


def test_plain_rows_do_not_change_when_rescored_rows_are_asked_for():
    clips, bank = embedded(20, 0), embedded(9, 50)
    table = retrieval_table(rank_directions(clips), 20)
    plain = describe_evaluation("test", "all", clips, table, None, 20)
    rescored = rescored_tables(clips, BOTH, bank, 20, None)
    marked = describe_evaluation("test", "all", clips, table, None, 20, rescored)
    assert json.dumps({k: v for k, v in marked.items() if k != "rescored"}) == json.dumps(plain)
    assert "rescored" not in plain
    above, below = format_table(marked).split(f"\n\n{NOT_COMPARABLE}")
    assert above == format_table(plain)
    assert "dual_softmax" not in above
    assert "t->va dual_softmax" in below
    assert "t->va qb_norm" in below
    assert (
        "sees all test queries at once and assumes that each clip belongs to exactly one" in below
    )
    assert "sees 9 queries of the training split" in below


def test_a_direction_that_the_bank_cannot_ask_in_is_left_out():
    bank = embedded(9, 50)
    bank.present["audio"][:] = False
    directions = rescored_tables(embedded(20, 0), BOTH, bank, 20, None)["qb_norm"]["directions"]
    assert "a->v" not in directions
    assert "va->t" in directions


def test_clips_with_several_captions_are_rescored_and_the_broken_assumption_is_said():
    clips = several_captions()
    tables = rescored_tables(clips, Settings(rescoring=["dual_softmax"]), None, 6, clips.captions)
    row = tables["dual_softmax"]["directions"]["t->v"]
    assert (row["queries"], row["gallery"]) == (12, 6)
    assert "not so here" in tables["dual_softmax"]["assumes"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"rescoring": ["dual_sofmax"]},
            "unknown 'dual_sofmax'; choose from dual_softmax, qb_norm",
        ),
        ({"rescoring": ["qb_norm", "qb_norm"]}, "names one twice: qb_norm, qb_norm"),
        ({"qb_norm_bank": 0}, "evaluation.qb_norm_bank must be more than 0 and finite; got 0"),
        ({"qb_norm_scale": float("inf")}, "must be more than 0 and finite; got inf"),
        ({"dual_softmax_scale": -1.0}, "evaluation.dual_softmax_scale must be more than 0"),
    ],
)
def test_a_wrong_setting_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Settings(**settings)
