"""Everything at Once: one transformer that embeds any combination of modalities.

Shvetsova et al., CVPR 2022, arXiv:2112.04446.

Shapes: B clips, D token width, E embedding width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fusion.modalities import members, spell
from fusion.models.davenet import build_encoder
from fusion.models.dropout import ClipDropout
from fusion.models.packing import Grid, Span, token_grid
from fusion.models.transformer import LAYER_NORM_EPS, PROJECTIONS, Transformer
from fusion.tokens import Tokens, true_places

CLS = "[cls]"


class Pass(NamedTuple):
    """The pass of one combination through the transformer."""

    members: tuple[str, ...]  # their tokens attend to one another
    pooled: tuple[str, ...]  # their outputs make up the embedding
    complete: Tensor | None = None  # (B,) bool: the clips to embed; None: all
    host_complete: Tensor | None = None  # the same in CPU memory


class EAO(nn.Module):
    """Embed every configured combination of modalities of each clip.

    Each modality's features are projected to tokens. The tokens of a combination attend to one
    another in one shared transformer. The outputs of each modality are averaged, projected by that
    modality's head and normalised; the embedding is the average over modalities. One learned
    masking token replaces a modality that a clip lacks. :mod:`fusion.models.eao_reference` says
    the same on one page of code.

    Args:
        modalities: for each modality's name a dict: ``dim``, the width of its features; or
            ``encoder``, a dict with a ``name``, in :data:`fusion.models.davenet.ENCODERS` or an
            import path, and its arguments; and ``max_tokens``, needed with ``positional``. None
            removes a modality.
        combinations: such as ``["t", "v", "va"]``.
        token_dim: D.
        embedding_dim: E.
        num_blocks: depth of the transformer; 0 removes it (ablation).
        num_heads: attention heads, a divisor of D.
        mlp_ratio: hidden width of the transformer's perceptrons, in units of D.
        projection: ``gated`` or ``linear``, for tokens and heads.
        shared_head: one head for all modalities (ablation).
        cls_token: read the embedding from a class token, through a shared head (ablation).
        positional: add a learned embedding of each token's position (ablation).
        transformer_per_modality: a transformer for each modality, so no fusion (ablation).
        token_norm: normalise the projected tokens, as published. Without it tokens of the
            background keep their small size.
        final_norm: normalise the transformer's output tokens, as in ViT (arXiv:2010.11929); the
            published model does not.
        pool: ``mean``, or ``max``, the largest of each value over a modality's output tokens, not
            published: what one token found is not lost among the others.
        dropout: probability of a token's value to become zero in training.
        init_std: standard deviation of the transformer's first weights; None: it follows from the
            width, see :class:`fusion.models.transformer.Transformer`.

    Raises:
        ValueError: the arguments contradict one another; the message says which.
    """

    embeds_any = True  # also combinations that are not configured

    def __init__(
        self,
        modalities: Mapping[str, Mapping[str, Any]],
        combinations: Sequence[str],
        token_dim: int = 4096,
        embedding_dim: int = 6144,
        num_blocks: int = 1,
        num_heads: int = 64,
        mlp_ratio: float = 1.0,
        projection: str = "gated",
        shared_head: bool = False,
        cls_token: bool = False,
        positional: bool = False,
        transformer_per_modality: bool = False,
        final_norm: bool = False,
        dropout: float = 0.0,
        pool: str = "mean",
        init_std: float | None = 0.02,
        token_norm: bool = True,
    ) -> None:
        super().__init__()
        modalities = {name: spec for name, spec in modalities.items() if spec is not None}
        self.modalities = tuple(modalities)
        parts = [members(combination, self.modalities) for combination in combinations]
        self.combinations = {spell(names): names for names in parts}
        self._check(cls_token, shared_head, transformer_per_modality, projection)
        project, shared = PROJECTIONS[projection], ("shared",)

        self.encoders = nn.ModuleDict()
        widths = {}
        for name, spec in modalities.items():
            if encoder := build_encoder(name, spec):
                self.encoders[name] = encoder
            widths[name] = encoder.out_dim if encoder else spec["dim"]
        self.token_projections = _for_each(
            self.modalities,
            lambda name: nn.Sequential(
                project(widths[name], token_dim),
                nn.LayerNorm(token_dim, eps=LAYER_NORM_EPS) if token_norm else nn.Identity(),
            ),
        )
        self.transformers = _for_each(
            self.modalities if transformer_per_modality else shared,
            lambda _: Transformer(
                num_blocks, token_dim, num_heads, mlp_ratio, final_norm, pool, init_std
            ),
        )
        self.heads = _for_each(
            shared if shared_head else self.modalities, lambda _: project(token_dim, embedding_dim)
        )
        self.dropout = ClipDropout(dropout)
        self.masking_token = _small_parameter(token_dim)
        self.cls_token = _small_parameter(token_dim) if cls_token else None
        longest = {m: _max_tokens(m, modalities[m]) for m in self.modalities if positional}
        self.positions = nn.ParameterDict(
            {m: _small_parameter(length, token_dim) for m, length in longest.items()}
        )

    def forward(
        self,
        inputs: Mapping[str, Tokens],
        combinations: Iterable[str] | None = None,
        skip_incomplete: bool = False,
        seeds: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Embed a batch.

        Args:
            inputs: for each modality the features of B clips; without it, all clips lack it.
            combinations: which to compute, any of the modalities; the configured ones if not given.
            skip_incomplete: embed a combination only for clips that have all of its modalities; the
                others get zeros, which no loss reads.
            seeds: (B,) int64, for the dropout of each clip; drawn by torch if not given.

        Returns:
            For each combination, (B, E) embeddings: averages of unit vectors.
        """
        words = list(self.combinations if combinations is None else combinations)
        needed = {m for word in words for m in members(word, self.modalities)}
        num_clips = next(iter(inputs.values())).num_clips
        tokens = {
            m: self._tokenize(m, inputs.get(m), num_clips) for m in self.modalities if m in needed
        }
        return self.embed_tokens(tokens, words, skip_incomplete, seeds)

    def tokenize(self, inputs: Mapping[str, Tokens]) -> dict[str, Tokens]:
        """Make the tokens of modalities, which :meth:`embed_tokens` may read several times."""
        return {m: self._tokenize(m, x, x.num_clips) for m, x in inputs.items()}

    def embed_tokens(
        self,
        tokens: Mapping[str, Tokens],
        combinations: Iterable[str],
        skip_incomplete: bool = False,
        seeds: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Embed B clips of which :meth:`tokenize` made the tokens; all else as in ``forward``."""
        parts = [members(c, self.modalities) for c in combinations]
        chosen = {spell(names): names for names in parts}
        needed = [m for m in self.modalities if any(m in names for names in parts)]
        num_clips = next(iter(tokens.values())).num_clips
        tokens = {
            m: tokens[m] if m in tokens else self._tokenize(m, None, num_clips) for m in needed
        }
        passes = {c: self._pass(parts, tokens, skip_incomplete) for c, parts in chosen.items()}
        if not skip_incomplete:
            tokens = {m: x.fill_missing(self.masking_token) for m, x in tokens.items()}
        tokens = {m: self._add_positions(m, x) for m, x in tokens.items()}
        tokens = {m: self.dropout(x, seeds, self.modalities.index(m)) for m, x in tokens.items()}
        if self.cls_token is not None:
            like = tokens[needed[0]]
            values = self.cls_token.to(like.values.dtype).expand(num_clips, -1)
            ones = torch.ones_like(like.lengths), torch.ones_like(like.host_lengths)
            tokens[CLS] = Tokens(values, *ones)
        views = self._project(self._pool(tokens, passes))
        embeddings = {}
        for c, one in passes.items():
            embedding = torch.stack([views[c, name] for name in one.pooled]).mean(dim=0)
            if one.complete is not None:
                embedding = embedding.masked_fill(~one.complete[:, None], 0)
            embeddings[c] = embedding
        return embeddings

    @property
    def feature_projections(self) -> list[nn.Module]:
        """The projections whose inputs are features, and not what an encoder makes of them."""
        names = [name for name in self.modalities if name not in self.encoders]
        return [part for name in names for part in self.token_projections[name].modules()]

    def _tokenize(self, modality: str, inputs: Tokens | None, num_clips: int) -> Tokens:
        if inputs is None:
            values = self.masking_token.new_zeros(0, len(self.masking_token))
            none = torch.zeros(num_clips, dtype=torch.int64, device=values.device)
            return Tokens(values, none, torch.zeros(num_clips, dtype=torch.int64))
        tokens = self.encoders[modality](inputs) if modality in self.encoders else inputs
        return tokens.replace(self.token_projections[modality](tokens.values))

    def _add_positions(self, modality: str, tokens: Tokens) -> Tokens:
        if modality not in self.positions:
            return tokens
        table, longest = self.positions[modality], tokens.longest
        if longest > len(table):
            raise ValueError(
                f"a clip has {longest} {modality} tokens, but there are positions for"
                f" {len(table)}; raise model.modalities.{modality}.max_tokens"
            )
        position = true_places(tokens.mask, len(tokens.values)) % max(longest, 1)
        return tokens.replace(tokens.values + F.embedding(position, table))

    def _pass(
        self, parts: tuple[str, ...], tokens: Mapping[str, Tokens], skip_incomplete: bool
    ) -> Pass:
        if len(parts) > 1 and "shared" not in self.transformers:
            raise ValueError(f"a transformer per modality cannot fuse {', '.join(parts)}")
        pooled = parts if self.cls_token is None else (CLS,)
        reads = parts if self.cls_token is None else (CLS, *parts)
        host_complete = torch.stack([tokens[m].host_lengths > 0 for m in parts]).all(dim=0)
        if not skip_incomplete or host_complete.all():
            return Pass(reads, pooled)
        complete = torch.stack([tokens[m].present for m in parts]).all(dim=0)
        return Pass(reads, pooled, complete, host_complete)

    def _pool(
        self, tokens: Mapping[str, Tokens], passes: Mapping[str, Pass]
    ) -> dict[tuple[str, str], Tensor]:
        """Run all passes: the pooled output (B, D) of each pass and pooled member."""
        means: dict[tuple[str, str], Tensor] = {}
        for name, transformer in self.transformers.items():
            mine = {c: p for c, p in passes.items() if name in ("shared", p.members[-1])}
            if not mine:
                continue
            read = {m: x for m, x in tokens.items() if any(m in p.members for p in mine.values())}
            grid, x = token_grid(read)
            rows = _row_grid(read, mine, lambda p: p.members)
            pooled = _row_grid(read, mine, lambda p: p.pooled)
            outputs = transformer(x, grid, rows, pooled).unbind(0)
            keys = [(c, m) for c, p in mine.items() for m in p.pooled]
            means |= dict(zip(keys, outputs, strict=True))
        return means

    def _project(self, means: Mapping[tuple[str, str], Tensor]) -> dict[tuple[str, str], Tensor]:
        """Project mean outputs, one batch for each head: (B, E) unit vectors."""
        views: dict[tuple[str, str], Tensor] = {}
        for name, head in self.heads.items():
            mine = [key for key in means if name in ("shared", key[1])]
            if mine:
                outputs = F.normalize(head(torch.cat([means[key] for key in mine])), dim=-1)
                views |= dict(zip(mine, outputs.chunk(len(mine)), strict=True))
        return views

    def _check(
        self, cls_token: bool, shared_head: bool, transformer_per_modality: bool, projection: str
    ) -> None:
        if not self.combinations:
            raise ValueError("model.combinations is empty; name at least one, such as t or va")
        if projection not in PROJECTIONS:
            raise ValueError(f"projection must be one of {list(PROJECTIONS)}; got {projection!r}")
        if cls_token and not shared_head:
            raise ValueError("cls_token needs shared_head: true, as it belongs to no modality")
        fused = [c for c, parts in self.combinations.items() if len(parts) > 1]
        if transformer_per_modality and fused:
            raise ValueError(
                f"transformer_per_modality cannot embed the combination {fused[0]!r}; list single"
                " modalities only"
            )
        used = {m for parts in self.combinations.values() for m in parts}
        if unused := [m for m in self.modalities if m not in used]:
            raise ValueError(
                f"modality {unused[0]!r} is in no combination of {list(self.combinations)};"
                " add one or leave the modality out"
            )


def _row_grid(
    tokens: Mapping[str, Tokens],
    passes: Mapping[str, Pass],
    names_of: Callable[[Pass], tuple[str, ...]],
) -> Grid:
    """Make a grid with a row for each token of some members of each pass."""
    spans, sizes, lengths, host_lengths = [], [], [], []
    for group, one in enumerate(passes.values()):
        for name in names_of(one):
            spans.append(Span(name, group, one.members))
            sizes.append(tokens[name].longest)
            kept, host_kept = tokens[name].lengths, tokens[name].host_lengths
            if one.complete is not None and one.host_complete is not None:
                kept, host_kept = kept * one.complete, host_kept * one.host_complete
            lengths.append(kept)
            host_lengths.append(host_kept)
    return Grid(spans, sizes, lengths, host_lengths)


def _max_tokens(name: str, spec: Mapping[str, Any]) -> int:
    if "max_tokens" not in spec:
        raise ValueError(f"positional embeddings need model.modalities.{name}.max_tokens")
    return spec["max_tokens"]


def _for_each(names: Iterable[str], make: Callable[[str], nn.Module]) -> nn.ModuleDict:
    return nn.ModuleDict({name: make(name) for name in names})


def _small_parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(nn.init.trunc_normal_(torch.zeros(shape), std=0.02))
