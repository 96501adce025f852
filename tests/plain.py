"""Everything at Once as the paper writes it down, on the weights of a model of ours.

The yardstick for tests and ``tools/benchmark.py``: every combination is a pass of its own over
padded tokens, every pair of embeddings a whole similarity matrix. Nothing is shared or skipped.

Shapes: B clips, L tokens of the longest clip, D token width, E embedding width, H heads.
"""

from collections import deque

import torch
import torch.nn.functional as F
from einops import rearrange


def embed(model, inputs, combinations=None):
    """Embed B clips: for each combination (B, E), as ``model(inputs, combinations)`` does."""
    chosen = {c: model.combinations[c] for c in combinations or model.combinations}
    tokens = {m: tokenize(model, m, inputs[m]) for m in inputs}
    return {
        c: embed_combination(model, {m: tokens[m] for m in parts}) for c, parts in chosen.items()
    }


def tokenize(model, modality, features):
    """Project features to tokens: (B, L, D) and the (B, L) mask of real ones."""
    if modality in model.encoders:
        features = model.encoders[modality](features)
    x, mask = features.pad(max(features.longest, 1))
    projection, norm = model.token_projections[modality]
    x = norm(project(projection, x))
    missing = ~mask.any(dim=1)
    first = torch.where(missing[:, None], model.masking_token, x[:, 0])
    x = torch.cat([first[:, None], x[:, 1:]], dim=1)
    mask = torch.cat([mask[:, :1] | missing[:, None], mask[:, 1:]], dim=1)
    if modality in model.positions:
        x = x + model.positions[modality][: x.shape[1]]
    return x, mask


def embed_combination(model, tokens):
    """Embed clips from the tokens of some modalities."""
    x = torch.cat([values for values, _ in tokens.values()], dim=1)
    mask = torch.cat([mask for _, mask in tokens.values()], dim=1)
    if model.cls_token is not None:
        x = torch.cat([model.cls_token.expand(len(x), 1, -1), x], dim=1)
        mask = F.pad(mask, (1, 0), value=True)
    for block in one_of(model.transformers, *tokens).blocks:
        x = x + attend(block.attention, block.norm1(x), mask)
        x = x + block.mlp(block.norm2(x))
    if model.cls_token is not None:
        return F.normalize(project(model.heads["shared"], x[:, 0]), dim=-1)
    parts = x.split([values.shape[1] for values, _ in tokens.values()], dim=1)
    views = []
    for (modality, (_, mask)), part in zip(tokens.items(), parts, strict=True):
        weights = mask.to(part.dtype)[..., None]
        mean = (part * weights).sum(dim=1) / weights.sum(dim=1)
        views.append(F.normalize(project(one_of(model.heads, modality), mean), dim=-1))
    return torch.stack(views).mean(dim=0)


def attend(attention, x, mask):
    """Let every token attend to the real tokens of its own clip."""
    q, k, v = rearrange(
        attention.qkv(x), "b l (qkv h d) -> qkv b h l d", qkv=3, h=attention.num_heads
    )
    scores = (q @ k.mT) * q.shape[-1] ** -0.5
    scores = scores.masked_fill(~mask[:, None, None, :], -torch.inf)
    return attention.out(rearrange(scores.softmax(dim=-1) @ v, "b h l d -> b l (h d)"))


def project(projection, x):
    """Project; a gated projection scales each output by what all outputs say."""
    if isinstance(projection, torch.nn.Linear):
        return projection(x)
    y = projection.project(x)
    return y * projection.gate(y).sigmoid()


def one_of(modules, modality, *_):
    return modules[modality if modality in modules else "shared"]


def combinatorial_loss(loss, embeddings, present):
    """Sum the terms over the clips that have all that a term needs, as weighted in ``loss``."""
    total, weight = 0.0, 0.0
    for term, (left, right) in loss.pairs.items():
        complete = torch.stack([present[m] for m in loss.needs[term]]).all(dim=0)
        if complete.any():
            x, y = embeddings[left][complete], embeddings[right][complete]
            kinds = {"mms": mms, "mms_dot": mms_dot}
            if loss.contrastive == "nce":
                value = nce(x, y, loss.temperature)
            else:
                value = kinds[loss.contrastive](x, y, loss.margin)
            total = total + loss.weights[term] * value
            weight += loss.weights[term]
    return total / weight


def nce(x, y, temperature):
    """Noise-contrastive loss, both directions added."""
    return both_directions(F.normalize(x, dim=-1) @ F.normalize(y, dim=-1).T / temperature)


def mms(x, y, margin):
    """Masked margin softmax."""
    cosines = F.normalize(x, dim=-1) @ F.normalize(y, dim=-1).T
    return both_directions(cosines - margin * torch.eye(len(x), dtype=x.dtype, device=x.device))


def mms_dot(x, y, margin):
    """Masked margin softmax of dot products."""
    return both_directions(x @ y.T - margin * torch.eye(len(x), dtype=x.dtype, device=x.device))


def both_directions(logits):
    target = torch.arange(len(logits), device=logits.device)
    return F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)


class ClusterLoss:
    """Clusters of fused embeddings, step by step as the paper says; see fusion.losses.clusters."""

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
    """Give the largest cosine of a row with a centroid, and of which."""
    cosines = [F.cosine_similarity(row, c, dim=0).item() for c in centroids]
    return max(cosines), cosines.index(max(cosines))


def kmeans(rows, centroids):
    """Cluster by cosine; give the centroids, and those that the last assignment was made by."""
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
