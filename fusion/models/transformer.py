"""Transformer, gated projection and dropout, for all models. None depends on modalities.

Shapes: B clips, N tokens of all clips, D width, H heads.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from fusion.models.packing import Grid

LAYER_NORM_EPS = 1e-6
TYPICAL_ROWS = 2048  # of a projection, for code that is compiled for any number
CUDA_KERNELS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


class GatedProjection(nn.Module):
    """Linear projection, each output scaled by a gate: ``y = W x + b``, ``y * sigmoid(G y + c)``.

    The "context gating" of Miech et al., arXiv:1706.06905; EAO projects every input token and
    every final embedding with it: (rows, in_dim) -> (rows, out_dim).
    """

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.project = nn.Linear(in_dim, out_dim)
        self.gate = nn.Linear(out_dim, out_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Project and gate ``x``."""
        y = self.project(x)
        in_dim, out_dim = self.project.in_features, self.project.out_features
        rows = TYPICAL_ROWS if torch.compiler.is_compiling() else len(x)  # which is not known then
        if rows * (out_dim - in_dim) > out_dim * in_dim:
            # G (W x + b) + c = (G W) x + (G b + c): fewer products for many rows of narrow inputs.
            bias = torch.addmv(self.gate.bias, self.gate.weight, self.project.bias)
            gate = F.linear(x, self.gate.weight @ self.project.weight, bias)
        else:
            gate = self.gate(y)
        return y * gate.sigmoid()


PROJECTIONS: dict[str, type[nn.Module]] = {"gated": GatedProjection, "linear": nn.Linear}


# How the output tokens of a modality become one vector: (N, D) -> (spans, B, D)
POOLS: dict[str, Callable[[Grid, Tensor], Tensor]] = {"mean": Grid.mean, "max": Grid.max}


class SelfAttention(nn.Module):
    """Multi-head attention: its weights, and the split into heads."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        if num_heads < 1 or dim % num_heads:
            raise ValueError(f"token_dim ({dim}) must be a multiple of num_heads ({num_heads})")
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        """Average the values (B, K, D) that each query (B, Q, D) may see, weighted by attention.

        The mask is bool and broadcasts to (B, H, Q, K); None if every query sees all. The result
        (B, Q, D) is still to be projected by ``out``.
        """
        q, k, v = (
            rearrange(x, "b l (h d) -> b h l d", h=self.num_heads) for x in (queries, keys, values)
        )
        if q.is_cuda:
            # With a mask, cuDNN's kernel returns NaN gradients at some lengths (pytorch#196678).
            with sdpa_kernel(CUDA_KERNELS):
                context = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        elif q.device.type == "cpu" and q.dtype in (torch.bfloat16, torch.float16):
            # Three times as fast as PyTorch's kernel in bf16.
            scores = q * q.shape[-1] ** -0.5 @ k.mT
            if mask is not None:
                scores = scores.masked_fill(~mask, -math.inf)
            context = scores.softmax(dim=-1).to(v.dtype) @ v
        else:
            context = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return rearrange(context, "b h l d -> b l (h d)")


class Block(nn.Module):
    """Pre-norm transformer block: attention, then a two-layer perceptron, each added to its input.

    The hidden width of the perceptron is ``mlp_ratio`` D.
    """

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.attention = SelfAttention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        hidden = int(dim * mlp_ratio)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))

    def forward(self, x: Tensor, source: Grid, target: Grid, pool: bool = False) -> Tensor:
        """Transform the (N, D) tokens of ``source`` into the (N', D) rows of ``target``.

        Norm, queries, keys and values are computed once for each token, whatever the number of its
        rows in ``target``. With ``pool`` each span of the result is averaged: (spans, B, D). The
        perceptron's second layer, which is linear, is then applied after the mean.
        """
        widths = [x.shape[-1]] * 3
        queries, keys, values = source.pad(self.attention.qkv(self.norm1(x))).split(widths, dim=-1)
        context = self.attention.attend(
            source.spread(queries, target), keys, values, source.attention_mask(target)
        )
        x = target.pack(source.spread(source.pad(x), target))
        x = x + self.attention.out(target.pack(context))
        hidden = self.mlp[1](self.mlp[0](self.norm2(x)))
        if pool:
            return target.mean(x) + self.mlp[2](target.mean(hidden))
        return x + self.mlp[2](hidden)


class Transformer(nn.Module):
    """A sequence of blocks, initialised as in ViT (arXiv:2010.11929).

    With ``final_norm`` each output token is normalised after the last block, as in ViT. ``pool``
    is one of ``POOLS``: how output tokens become one vector. ``init_std`` is the standard deviation
    of the first weights; None: that of Glorot and Bengio (2010), which grows as D becomes small.
    """

    def __init__(
        self,
        num_blocks: int,
        dim: int,
        num_heads: int,
        mlp_ratio: float,
        final_norm: bool = False,
        pool: str = "mean",
        init_std: float | None = 0.02,
    ) -> None:
        super().__init__()
        if pool not in POOLS:
            raise ValueError(f"pool must be one of {list(POOLS)}; got {pool!r}")
        if init_std is not None and not init_std > 0:
            raise ValueError(f"init_std must be above 0, or none; got {init_std}")
        self.pool = POOLS[pool]
        if num_blocks < 0:
            raise ValueError(f"num_blocks must be at least 0, no transformer; got {num_blocks}")
        self.blocks = nn.ModuleList(Block(dim, num_heads, mlp_ratio) for _ in range(num_blocks))
        norm = final_norm and num_blocks > 0  # without blocks the tokens are normalised already
        self.final_norm = nn.LayerNorm(dim, eps=LAYER_NORM_EPS) if norm else None
        for module in self.modules():
            if isinstance(module, nn.Linear):
                if init_std is None:
                    nn.init.xavier_uniform_(module.weight)
                else:
                    nn.init.trunc_normal_(module.weight, std=init_std)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor, tokens: Grid, rows: Grid, pooled: Grid) -> Tensor:
        """Run several passes over the same (N, D) tokens and pool their outputs.

        ``tokens`` has every token once, ``rows`` a row for each token of each pass, and ``pooled``
        the spans of ``rows`` to pool: (spans of ``pooled``, B, D).
        """
        if not self.blocks:
            return self.pool(pooled, pooled.pack(tokens.spread(tokens.pad(x), pooled)))
        source = tokens
        for block in self.blocks[:-1]:
            x, source = block(x, source, rows), rows
        if self.final_norm is None and self.pool is Grid.mean:
            return self.blocks[-1](x, source, pooled, pool=True)
        x = self.blocks[-1](x, source, pooled)
        return self.pool(pooled, x if self.final_norm is None else self.final_norm(x))
