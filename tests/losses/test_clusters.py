"""Clusters of clips and their loss, against the plain version and by hand."""

import pytest
import torch

from fusion.losses import MCNLoss
from fusion.losses.clusters import ClusterLoss, assign, cluster_contrast, kmeans
from tests.losses import plain


def rows(count, width=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, width, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("clusters", [2, 5, 9])
def test_kmeans_equals_the_plain_one(clusters):
    points = rows(40)
    found = kmeans([points], [torch.ones(40, dtype=torch.bool)], points[:clusters])
    centroids, previous = plain.kmeans(points, points[:clusters])
    torch.testing.assert_close(found.centroids, centroids)
    torch.testing.assert_close(found.previous, previous)


def test_tiles_change_nothing(monkeypatch):
    points, valid = rows(40), rows(40)[:, 0] > -1
    expected, labels = kmeans([points], [valid], points[:4]), assign(points, points[:4])
    monkeypatch.setattr("fusion.losses.clusters.TILE_ROWS", 7)
    parts = [(x[:17], x[17:]) for x in (points, valid)]
    for ours, whole in zip(kmeans(*parts, points[:4]), expected, strict=True):
        torch.testing.assert_close(ours, whole)
    assert assign(points, points[:4]).equal(labels)


def test_rows_that_are_not_valid_might_as_well_not_be_there():
    points, valid = rows(40), torch.arange(40) % 3 > 0
    found = kmeans([points], [valid], points[1:5])
    expected = kmeans([points[valid]], [torch.ones(26, dtype=torch.bool)], points[1:5])
    torch.testing.assert_close(found.centroids, expected.centroids)


def test_an_empty_cluster_is_given_the_loneliest_row_and_is_counted():
    points = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [-0.2, 1.0]])
    start = torch.tensor([[1.0, 0.0], [-1.0, -1.0], [-1.0, -1.1]])
    found = kmeans([points], [torch.ones(4, dtype=torch.bool)], start)
    assert found.empty == 2  # at first; in the end every cluster has rows
    assert len(set(assign(points, found.centroids).tolist())) == 3


@pytest.mark.parametrize("count", [0, 1, 2])
def test_clusters_without_rows_to_take_rest(count):
    """Rows that are not valid do not get into the centroids, however few others there are."""
    points, valid, start = rows(12), torch.arange(12) < count, rows(4, seed=1)
    found = kmeans([points], [valid], start)
    allowed = [*start, *points[:count], points[:count].mean(dim=0)]
    for centroid in found.centroids:
        assert any(torch.allclose(centroid, other) for other in allowed)
    assert found.centroids.equal(start) == (count == 0)
    assert found.empty >= 4 - count


def test_with_more_clusters_than_rows_the_cut_changes_nothing(monkeypatch):
    points, valid, start = rows(12), torch.ones(12, dtype=torch.bool), rows(16, seed=1)
    expected = kmeans([points], [valid], start)
    monkeypatch.setattr("fusion.losses.clusters.TILE_ROWS", 5)
    parts = [(x[:7], x[7:]) for x in (points, valid)]
    for ours, whole in zip(kmeans(*parts, start), expected, strict=True):
        torch.testing.assert_close(ours, whole)


def test_contrast_is_cross_entropy_with_a_margin():
    x, centroids, labels = rows(6), rows(3, seed=1), torch.tensor([0, 2, 1, 1, 0, 2])
    present = torch.ones(2, 6, dtype=torch.bool)
    present[1, 3:] = False
    scores = [[float(a @ c) for c in centroids] for a in x]
    for row, label in zip(scores, labels, strict=True):
        row[label] -= 0.5
    each = torch.tensor(
        [
            torch.tensor(row).logsumexp(0) - row[label]
            for row, label in zip(scores, labels, strict=True)
        ],
        dtype=torch.float64,
    )
    expected = (each.mean() + each[:3].mean()) / 2
    got = cluster_contrast([x, x], present, labels, centroids, 0.5)
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=0)
    silent = present & torch.tensor([[True], [False]])
    torch.testing.assert_close(
        cluster_contrast([x, x], silent, labels, centroids, 0.5), each.mean(), rtol=1e-6, atol=0
    )


def test_contrast_keeps_no_scores_and_takes_tiles_for_the_same_gradient(monkeypatch):
    x, centroids, labels = rows(40).requires_grad_(), rows(7, seed=1), torch.arange(40) % 7
    present = torch.arange(40)[None] % 3 > 0
    expected = torch.autograd.grad(
        cluster_contrast([x], present, labels, centroids, 0.5), x, retain_graph=True
    )
    monkeypatch.setattr("fusion.losses.clusters.TILE_ROWS", 9)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (kept.append(t), t)[1], lambda t: t):
        value = cluster_contrast([x], present, labels, centroids, 0.5)
    assert [t.shape for t in kept if t.dim() == 2 and t.shape[1] == 7] == []
    torch.testing.assert_close(torch.autograd.grad(value, x), expected)


@pytest.mark.parametrize("gone", [False, True])
def test_steps_equal_those_of_the_plain_one(gone):
    ours, theirs = (kind(3, 2, 2, 2, 0.001) for kind in (ClusterLoss, plain.ClusterLoss))
    for step in range(7):
        sides = [rows(12, seed=10 * step + m).requires_grad_() for m in range(3)]
        present = torch.ones(3, 12, dtype=torch.bool)
        if gone:
            present[step % 3, step] = present[0, 11] = False
        value, _ = ours(sides, present)
        got = torch.autograd.grad(value, sides)
        ours.commit()
        expected = theirs(sides, present)
        torch.testing.assert_close(value, expected)
        torch.testing.assert_close(got, torch.autograd.grad(expected, sides))


def test_a_step_that_is_not_taken_leaves_no_trace():
    loss, sides = ClusterLoss(3, 2, 1, 1, 0.001), [rows(12, seed=m) for m in range(3)]
    present = torch.ones(3, 12, dtype=torch.bool)
    first = loss(sides, present)[0]
    loss.undo()
    assert loss.state_dict()["step"] == 0
    torch.testing.assert_close(loss(sides, present)[0], first, rtol=0, atol=0)
    loss.commit()
    assert loss.state_dict()["step"] == 1


def test_a_step_that_is_taken_takes_no_memory():
    """When all have agreed on a step, nobody could wait for one that fails to take it."""
    loss, sides = ClusterLoss(3, 2, 1, 1, 0.001), [rows(12, seed=m) for m in range(3)]
    loss(sides, torch.ones(3, 12, dtype=torch.bool))
    queue = loss.state_dict()["queue"]
    loss.commit()
    assert loss.state_dict()["queue"] is queue
    assert queue[:12].equal((sides[0] + sides[1] + sides[2]) / 3)
    assert not queue[12:].any()


def test_of_a_modality_that_a_clip_lacks_nothing_gets_into_the_contrast():
    x, centroids, labels = rows(6), rows(3, seed=1), torch.tensor([0, 2, 1, 1, 0, 2])
    present = torch.arange(6)[None] > 0
    expected = cluster_contrast([x[1:]], present[:, 1:], labels[1:], centroids, 0.5)
    x[0] = float("nan")
    torch.testing.assert_close(cluster_contrast([x], present, labels, centroids, 0.5), expected)


def test_state_goes_through_a_checkpoint(tmp_path):
    def steps(loss, numbers):
        values = []
        for step in numbers:
            sides = [rows(12, seed=10 * step + m) for m in range(3)]
            values.append(loss(sides, torch.ones(3, 12, dtype=torch.bool))[0])
            loss.commit()
        return values

    expected = steps(ClusterLoss(3, 2, 1, 2, 0.001), range(6))
    before, after = ClusterLoss(3, 2, 1, 2, 0.001), ClusterLoss(3, 2, 1, 2, 0.001)
    steps(before, range(3))
    torch.save(before.state_dict(), tmp_path / "state")
    after.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
    torch.testing.assert_close(steps(after, range(3, 6)), expected[3:], rtol=0, atol=0)


def test_an_embedding_that_is_not_finite_stays_out_of_the_queue():
    loss, sides = ClusterLoss(2, 1, 1, 1, 0.001), [rows(6, seed=m) for m in range(2)]
    sides[0][2] = float("nan")
    loss(sides, torch.ones(2, 6, dtype=torch.bool))
    loss.commit()
    state = loss.state_dict()
    assert state["queue"].isfinite().all() and state["centroids"].isfinite().all()
    assert state["valid"].tolist() == [True, True, False, True, True, True]


def test_too_few_clips_for_the_clusters_is_explained():
    sides, present = [rows(6), rows(6)], torch.ones(2, 6, dtype=torch.bool)
    present[1, :3] = False
    with pytest.raises(
        ValueError, match="loss.clusters is 4, but of the 6 clips of a batch 3 have"
    ):
        ClusterLoss(4, 20, 2, 20, 0.001)(sides, present)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"clusters": 1}, "loss.clusters must be a number from 2 on; got 1"),
        ({"queue_batches": -1}, "loss.queue_batches must be a number from 0 on; got -1"),
        ({"every": 0}, "loss.every must be a number from 1 on; got 0"),
        ({"cluster_weight": -1}, "loss.cluster_weight must be at least 0; got -1"),
        ({"margin": 3}, "loss.margin must be between -2 and 2; got 3"),
    ],
)
def test_wrong_settings_are_explained(words, message):
    with pytest.raises(ValueError, match=message):
        MCNLoss(["text", "video"], **words)


def test_a_loss_of_reconstruction_needs_a_model_that_reconstructs():
    loss = MCNLoss(["text", "video"], cluster_weight=0)
    both = {"text": torch.ones(4, dtype=torch.bool), "video": torch.ones(4, dtype=torch.bool)}
    with pytest.raises(ValueError, match="set model.reconstruction_dim, or"):
        loss({"t": rows(4), "v": rows(4)}, both)


def test_parts_add_up_and_missing_modalities_are_left_out():
    names = ["text", "video", "audio"]
    loss = MCNLoss(names, cluster_weight=0, reconstruction_weight=2)
    present = {m: torch.ones(5, dtype=torch.bool) for m in names}
    present["audio"][1] = False
    embeddings = {x: rows(5, seed=i) for i, x in enumerate("tva")}
    errors = rows(5, 3, seed=4).square()
    embeddings["reconstruction"] = errors.clone()
    embeddings["reconstruction"][1, 2] = float("nan")
    value, terms = loss(embeddings, present)
    kept = present["audio"]
    pairs = plain.mms_dot(embeddings["t"], embeddings["v"], 0.001)
    for other in "tv":
        pairs += plain.mms_dot(embeddings[other][kept], embeddings["a"][kept], 0.001)
    error = errors[:, 0].mean() + errors[:, 1].mean() + errors[kept, 2].mean()
    torch.testing.assert_close(value, pairs + 2 * error)
    torch.testing.assert_close(terms["reconstruction"], 2 * error)
