"""Layers shared by all models. None of them knows what a modality is.

Shapes: B clips, L tokens of the longest clip, D width, H heads.
"""

from __future__ import annotations

import contextlib

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

LAYER_NORM_EPS = 1e-6


class GatedProjection(nn.Module):
    """Linear projection whose outputs are gated by one another, ``y * sigmoid(G y + c)``.

    The "context gating" of Miech et al., arXiv:1706.06905; EAO projects every input token and
    every final embedding with it.

    Args:
        in_dim: width of the input.
        out_dim: width of the output.

    Shape:
        (..., in_dim) -> (..., out_dim)
    """

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.project = nn.Linear(in_dim, out_dim)
        self.gate = nn.Linear(out_dim, out_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Project and gate ``x``."""
        y = self.project(x)
        return y * self.gate(y).sigmoid()


PROJECTIONS: dict[str, type[nn.Module]] = {"gated": GatedProjection, "linear": nn.Linear}


class SelfAttention(nn.Module):
    """Multi-head attention among the tokens of each clip.

    Args:
        dim: D, a multiple of ``num_heads``.
        num_heads: H.

    Shape:
        (B, L, D) and a bool mask (B, L) of real tokens -> (B, L, D)

    Raises:
        ValueError: ``dim`` is not a multiple of ``num_heads``.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        if num_heads < 1 or dim % num_heads:
            raise ValueError(f"token_dim ({dim}) must be a multiple of num_heads ({num_heads})")
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Let every token attend to the real tokens of its own clip."""
        q, k, v = rearrange(self.qkv(x), "b l (qkv h d) -> qkv b h l d", qkv=3, h=self.num_heads)
        with _kernels_for_masks(x):
            context = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None, :])
        return self.out(rearrange(context, "b h l d -> b l (h d)"))


class Block(nn.Module):
    """Pre-norm transformer block: attention, then a two-layer perceptron, each added to its input.

    Args:
        dim: D.
        num_heads: H.
        mlp_ratio: hidden width of the perceptron, in units of D.

    Shape:
        (B, L, D) and a bool mask (B, L) -> (B, L, D)
    """

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.attention = SelfAttention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        hidden = int(dim * mlp_ratio)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Transform the tokens of each clip."""
        x = x + self.attention(self.norm1(x), mask)
        return x + self.mlp(self.norm2(x))


class Transformer(nn.Module):
    """Blocks one after the other, initialised as ViT does (arXiv:2010.11929).

    Args:
        num_blocks: 0 passes the tokens through.
        dim: D.
        num_heads: H.
        mlp_ratio: see :class:`Block`.

    Shape:
        (B, L, D) and a bool mask (B, L) -> (B, L, D)
    """

    def __init__(self, num_blocks: int, dim: int, num_heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(dim, num_heads, mlp_ratio) for _ in range(num_blocks))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Transform the tokens of each clip."""
        for block in self.blocks:
            x = block(x, mask)
        return x


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Average the real tokens of each clip: (B, L, D), (B, L) bool -> (B, D)."""
    weights = mask.to(x.dtype)
    return (x * weights[..., None]).sum(dim=1) / weights.sum(dim=1, keepdim=True)


def _kernels_for_masks(x: Tensor) -> contextlib.AbstractContextManager[None]:
    # With a mask, cuDNN's kernel returns NaN gradients at some lengths (pytorch#196678).
    if x.is_cuda:
        return sdpa_kernel([SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH])
    return contextlib.nullcontext()
