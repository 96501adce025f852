"""The losses as their papers write them down, beside fusion.models.eao_reference.

They stay with the tests: MCN's clusters are Python loops over single clips, too slow for any use.
"""

from collections import deque

import torch
import torch.nn.functional as F

from fusion.models import eao_reference
from fusion.models.eao_reference import cross_entropies

nce = eao_reference.contrastive_loss


def mms(x, y, margin):
    """Masked margin softmax of cosines."""
    return mms_dot(F.normalize(x, dim=-1), F.normalize(y, dim=-1), margin)


def mms_dot(x, y, margin):
    """Masked margin softmax of dot products."""
    return cross_entropies(x @ y.T - margin * torch.eye(len(x), dtype=x.dtype, device=x.device))


def combinatorial_loss(loss, embeddings, present):
    """Compute what a CombinatorialLoss is configured to."""

    def contrastive(x, y):
        if loss.contrastive == "nce":
            return nce(x, y, loss.temperature)
        return {"mms": mms, "mms_dot": mms_dot}[loss.contrastive](x, y, loss.margin)

    needs = {
        t: [loss.presence.get(m, m) for side in loss.sides[t] for m in side] for t in loss.sides
    }
    terms = [(*loss.pairs[t], needs[t], weight) for t, weight in loss.weights.items()]
    return eao_reference.combinatorial_loss(embeddings, present, terms, contrastive)


class ClusterLoss:
    """Clusters of fused embeddings, step by step; see fusion.losses.clusters."""

    def __init__(self, clusters, queue_batches, queue_stride, every, margin=0.001):
        self.clusters, self.every, self.margin = clusters, every, margin
        self.stride, self.queue = queue_stride, deque(maxlen=queue_batches)
        self.step, self.centroids = 0, None

    def __call__(self, embeddings, present):
        fused = []
        for clip in range(len(embeddings[0])):
            parts = [x[clip].detach() for x, p in zip(embeddings, present, strict=True) if p[clip]]
            fused.append(sum(parts) / len(parts) if parts else torch.zeros_like(embeddings[0][0]))
        complete = [bool(present[:, clip].all()) for clip in range(len(fused))]
        batch = [x for x, whole in zip(fused, complete, strict=True) if whole]
        used = self.centroids
        if self.step % self.every == 0:
            if self.centroids is None:
                first = [batch[i * len(batch) // self.clusters] for i in range(self.clusters)]
                self.centroids = torch.stack(first)
            full = len(self.queue) == self.queue.maxlen
            rows = [x for part in self.queue for x in part] if full else []
            self.centroids, used = kmeans(torch.stack(rows + batch), self.centroids)
        kept = zip(fused[:: self.stride], complete[:: self.stride], strict=True)
        self.queue.appendleft([x for x, whole in kept if whole])
        self.step += 1
        labels = [nearest(x, used)[1] for x in fused]
        losses = []
        for x, flags in zip(embeddings, present, strict=True):
            scores = x @ self.centroids.T
            scores = scores - self.margin * F.one_hot(torch.tensor(labels), self.clusters)
            each = F.cross_entropy(scores, torch.tensor(labels), reduction="none")
            losses.append(each[flags].mean())
        return torch.stack(losses).mean()


def nearest(row, centroids):
    """Return the largest cosine of a row with a centroid, and the number of that centroid."""
    cosines = [F.cosine_similarity(row, c, dim=0).item() for c in centroids]
    return max(cosines), cosines.index(max(cosines))


def kmeans(rows, centroids):
    """Cluster by cosine; return the centroids, and those of the last assignment."""
    for _ in range(100):
        previous = centroids
        found = [nearest(row, centroids) for row in rows]
        lonely = iter(sorted(range(len(rows)), key=lambda i: found[i][0]))
        means = []
        for cluster in range(len(centroids)):
            mine = [row for row, (_, label) in zip(rows, found, strict=True) if label == cluster]
            means.append(torch.stack(mine).mean(dim=0) if mine else rows[next(lonely)])
        centroids = torch.stack(means)
        if (centroids - previous).square().sum() <= 1e-4:
            break
    return centroids, previous
