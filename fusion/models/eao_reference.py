"""Everything at Once on one page, as the paper writes it down (CVPR 2022, arXiv:2112.04446).

Read this first. It computes what :class:`fusion.models.EAO` and
:class:`fusion.losses.CombinatorialLoss` compute, from the weights of the former, in the simplest
way: each combination of modalities is a pass of its own over padded tokens, and each pair of
embeddings a whole B x B similarity matrix. Nothing is shared or skipped. Tests compare values and
gradients of the fast code with it, and ``tools/benchmark.py`` time and memory.

Shapes: B clips, L tokens of the longest clip, D token width, E embedding width, H heads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from fusion.models.eao import EAO
from fusion.models.packing import Grid
from fusion.tokens import Tokens

Padded = tuple[Tensor, Tensor]  # (B, L, D) tokens, and the (B, L) mask of real ones


def embed(
    model: EAO, inputs: Mapping[str, Tokens], combinations: Iterable[str] | None = None
) -> dict[str, Tensor]:
    """Embed B clips: for each combination (B, E), as ``model(inputs, combinations)`` does."""
    chosen = {c: model.combinations[c] for c in combinations or model.combinations}
    tokens = {m: tokenize(model, m, inputs[m]) for m in inputs}
    return {
        c: embed_combination(model, {m: tokens[m] for m in parts}) for c, parts in chosen.items()
    }


def tokenize(model: EAO, modality: str, features: Tokens) -> Padded:
    """Project the features of one modality to tokens.

    A clip that lacks the modality gets one token, the learned masking token.
    """
    if modality in model.encoders:  # DAVEnet: from a spectrogram to audio features
        features = model.encoders[modality](features)
    x, mask = features.pad(max(features.longest, 1))
    projection, norm = model.token_projections[modality].children()
    x = norm(project(projection, x))
    missing = ~mask.any(dim=1)
    first = torch.where(missing[:, None], model.masking_token, x[:, 0])
    x = torch.cat([first[:, None], x[:, 1:]], dim=1)
    mask = torch.cat([mask[:, :1] | missing[:, None], mask[:, 1:]], dim=1)
    if modality in model.positions:
        x = x + model.positions[modality][: x.shape[1]]
    return x, mask


def embed_combination(model: EAO, tokens: Mapping[str, Padded]) -> Tensor:
    """Embed clips from the tokens of some modalities: (B, E).

    The tokens attend to one another in the fusion transformer. The outputs of each modality are
    averaged (with ``pool: max`` the largest of each value is taken), projected and normalised; the
    embedding is the mean over modalities.
    """
    x = torch.cat([values for values, _ in tokens.values()], dim=1)
    mask = torch.cat([mask for _, mask in tokens.values()], dim=1)
    if model.cls_token is not None:
        x = torch.cat([model.cls_token.expand(len(x), 1, -1), x], dim=1)
        mask = F.pad(mask, (1, 0), value=True)
    transformer: Any = one_of(model.transformers, next(iter(tokens)))
    for block in transformer.blocks:
        x = x + attend(block.attention, block.norm1(x), mask)
        x = x + block.mlp(block.norm2(x))
    if transformer.final_norm is not None:
        x = transformer.final_norm(x)
    if model.cls_token is not None:
        return F.normalize(project(model.heads["shared"], x[:, 0]), dim=-1)
    parts = x.split([values.shape[1] for values, _ in tokens.values()], dim=1)
    views = []
    for (modality, (_, mask)), part in zip(tokens.items(), parts, strict=True):
        if transformer.pool is Grid.max:
            pooled = part.masked_fill(~mask[..., None], -torch.inf).amax(dim=1)
        else:
            weights = mask.to(part.dtype)[..., None]
            pooled = (part * weights).sum(dim=1) / weights.sum(dim=1)
        views.append(F.normalize(project(one_of(model.heads, modality), pooled), dim=-1))
    return torch.stack(views).mean(dim=0)


def attend(attention: Any, x: Tensor, mask: Tensor) -> Tensor:
    """Let every token attend to the real tokens of its own clip: (B, L, D) -> (B, L, D)."""
    q, k, v = rearrange(
        attention.qkv(x), "b l (qkv h d) -> qkv b h l d", qkv=3, h=attention.num_heads
    )
    scores = (q @ k.mT) * q.shape[-1] ** -0.5
    scores = scores.masked_fill(~mask[:, None, None, :], -torch.inf)
    return attention.out(rearrange(scores.softmax(dim=-1) @ v, "b h l d -> b l (h d)"))


def project(projection: Any, x: Tensor) -> Tensor:
    """Project linearly; a gated projection scales each output by a gate made of all outputs."""
    if isinstance(projection, nn.Linear):
        return projection(x)
    y = projection.project(x)
    return y * projection.gate(y).sigmoid()


def one_of(modules: nn.ModuleDict, modality: str) -> nn.Module:
    """Return the module of a modality, or the one that all modalities share."""
    return modules[modality if modality in modules else "shared"]


def combinatorial_loss(
    embeddings: Mapping[str, Tensor],
    present: Mapping[str, Tensor],
    terms: Iterable[tuple[str, str, Iterable[str], float]],
    contrastive: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """Average the contrastive losses between pairs of combinations, each (B, E).

    A term is two combinations, the modalities that a clip needs to count, and a weight; ``present``
    is (B,) bool for each modality; ``contrastive`` compares two (n, E) batches, such as
    :func:`contrastive_loss`.
    """
    total, sum_of_weights = torch.zeros(()), 0.0
    for left, right, needs, weight in terms:
        complete = torch.stack([present[m] for m in needs]).all(dim=0)
        if complete.any():
            value = contrastive(embeddings[left][complete], embeddings[right][complete])
            total, sum_of_weights = total + weight * value, sum_of_weights + weight
    return total / sum_of_weights


def contrastive_loss(x: Tensor, y: Tensor, temperature: float = 0.05) -> Tensor:
    """Find the partner of each row of x among the rows of y, and of each row of y among those of x.

    The InfoNCE of :func:`fusion.losses.nce`; the losses of the two directions are added.
    """
    return cross_entropies(F.normalize(x, dim=-1) @ F.normalize(y, dim=-1).T / temperature)


def cross_entropies(logits: Tensor) -> Tensor:
    """Add the cross-entropies over the rows and over the columns of (B, B) similarities."""
    target = torch.arange(len(logits), device=logits.device)
    return F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)
