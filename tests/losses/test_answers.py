import math

import pytest
import torch
from torch.testing import assert_close

from fusion.losses import AnswerLoss

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 1.0, 3.0]])
SCORES = torch.tensor([[1.0, 0.0, 0.3], [0.0, 0.0, 0.0]])


def loss(kind, logits=LOGITS, scores=SCORES):
    return AnswerLoss(["text"], kind)({"answers": logits}, {}, {"scores": scores})[0]


def test_sigmoid_is_the_sum_over_answers_of_binary_cross_entropies():
    total = 0.0
    for row, wanted in zip(LOGITS.tolist(), SCORES.tolist(), strict=True):
        for x, y in zip(row, wanted, strict=True):
            p = 1 / (1 + math.exp(-x))
            total -= y * math.log(p) + (1 - y) * math.log(1 - p)
    assert_close(loss("sigmoid"), torch.tensor(total / 2))


def test_softmax_shares_a_question_among_its_answers():
    chances = LOGITS[0].exp() / LOGITS[0].exp().sum()
    expected = -(1 / 1.3 * chances[0].log() + 0.3 / 1.3 * chances[2].log()) / 2
    assert_close(loss("softmax"), expected)


@pytest.mark.parametrize("kind", ["sigmoid", "softmax"])
def test_chunks_add_up_to_the_batch(kind):
    logits = torch.randn(6, 3, requires_grad=True)
    scores = torch.rand(6, 3) * (torch.rand(6, 1) > 0.3)
    loss(kind, logits, scores).backward()
    whole = logits.grad.clone()
    logits.grad = None
    for rows in (slice(0, 2), slice(2, 6)):
        size = rows.stop - rows.start
        (loss(kind, logits[rows], scores[rows]) * size / 6).backward()
    assert_close(logits.grad, whole)


def test_an_unknown_kind_is_explained():
    with pytest.raises(
        ValueError, match="loss.kind: unknown 'hinge'; choose from sigmoid, softmax"
    ):
        AnswerLoss([], "hinge")
