"""Everything at Once: one transformer that embeds any combination of modalities.

Shvetsova et al., CVPR 2022, arXiv:2112.04446.

Shapes: B clips, L tokens of the longest clip, D token width, E embedding width.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fusion.modalities import members, spell
from fusion.models.audio import DAVEnetEncoder
from fusion.models.layers import LAYER_NORM_EPS, PROJECTIONS, Transformer, masked_mean
from fusion.tokens import Tokens

ENCODERS: dict[str, type[nn.Module]] = {"davenet": DAVEnetEncoder}


class Sequences(NamedTuple):
    """Tokens side by side, at least one in every clip."""

    values: Tensor  # (B, L, D)
    mask: Tensor  # (B, L) bool, the real tokens


class EAO(nn.Module):
    """Embed every configured combination of modalities of each clip.

    Each modality's features are projected to tokens; the tokens of a combination attend to one
    another in one shared transformer; the outputs of each modality are averaged, projected by that
    modality's head and normalised; the embedding is the average over modalities. A modality that a
    clip lacks is replaced by one learned masking token.

    Args:
        modalities: for each modality's name a dict: ``dim``, the width of its features; or
            ``encoder``, a dict with the ``name`` of one of ``ENCODERS`` and its arguments; and
            ``max_tokens``, needed with ``positional``.
        combinations: what to embed, such as ``["t", "v", "va"]``.
        token_dim: D.
        embedding_dim: E.
        num_blocks: depth of the transformer; 0 leaves it out (ablation).
        num_heads: attention heads, a divisor of D.
        mlp_ratio: hidden width of the transformer's perceptrons, in units of D.
        projection: ``gated`` or ``linear``, for tokens and heads.
        shared_head: one head for all modalities (ablation).
        cls_token: read the embedding from a class token, through a shared head (ablation).
        positional: add a learned embedding of each token's position (ablation).
        transformer_per_modality: a transformer for each modality, so no fusion (ablation).

    Raises:
        ValueError: the arguments contradict one another; the message says which.
    """

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
    ) -> None:
        super().__init__()
        self.modalities = tuple(modalities)
        parts = [members(combination, self.modalities) for combination in combinations]
        self.combinations = {spell(names): names for names in parts}
        self._check(cls_token, shared_head, transformer_per_modality, projection)
        project = PROJECTIONS[projection]

        self.encoders = nn.ModuleDict()
        widths = {}
        for name, spec in modalities.items():
            if encoder := _encoder(name, spec):
                self.encoders[name] = encoder
            widths[name] = encoder.out_dim if encoder else spec["dim"]
        self.token_projections = nn.ModuleDict(
            {
                name: nn.Sequential(
                    project(width, token_dim), nn.LayerNorm(token_dim, eps=LAYER_NORM_EPS)
                )
                for name, width in widths.items()
            }
        )
        self.transformers = nn.ModuleDict(
            {
                name: Transformer(num_blocks, token_dim, num_heads, mlp_ratio)
                for name in (self.modalities if transformer_per_modality else ["shared"])
            }
        )
        self.heads = nn.ModuleDict(
            {
                name: project(token_dim, embedding_dim)
                for name in (["shared"] if shared_head else self.modalities)
            }
        )
        self.masking_token = _small_parameter(token_dim)
        self.cls_token = _small_parameter(token_dim) if cls_token else None
        self.positions = nn.ParameterDict(
            {
                name: _small_parameter(_max_tokens(name, spec), token_dim)
                for name, spec in (modalities.items() if positional else ())
            }
        )

    def forward(
        self, inputs: Mapping[str, Tokens], combinations: Iterable[str] | None = None
    ) -> dict[str, Tensor]:
        """Embed a batch.

        Args:
            inputs: for each modality the features of B clips; one that is left out is missing in
                every clip.
            combinations: which to compute, any that the modalities allow; the configured ones if
                not given.

        Returns:
            For each combination, (B, E) embeddings: averages of unit vectors.
        """
        words = self.combinations if combinations is None else combinations
        chosen = {spell(names): names for names in (members(c, self.modalities) for c in words)}
        needed = [m for m in self.modalities if any(m in parts for parts in chosen.values())]
        num_clips = next(iter(inputs.values())).num_clips
        sequences = {m: self.tokenize(m, inputs.get(m), num_clips) for m in needed}
        return {c: self.fuse({m: sequences[m] for m in parts}) for c, parts in chosen.items()}

    def tokenize(self, modality: str, inputs: Tokens | None, num_clips: int) -> Sequences:
        """Project one modality's features to tokens; clips without any get the masking token."""
        masking = self.masking_token
        if inputs is None:
            values, mask = masking.new_zeros(num_clips, 1, len(masking)), None
            missing = torch.ones(num_clips, dtype=torch.bool, device=masking.device)
        else:
            tokens = self.encoders[modality](inputs) if modality in self.encoders else inputs
            tokens = tokens.replace(self.token_projections[modality](tokens.values))
            values, mask = tokens.pad(max(tokens.longest, 1))  # (B, L, D), (B, L)
            missing = ~tokens.present
        first = torch.where(missing[:, None], masking.to(values.dtype), values[:, 0])
        values = torch.cat([first[:, None], values[:, 1:]], dim=1)
        first_is_real = torch.ones_like(missing)[:, None]
        mask = first_is_real if mask is None else torch.cat([first_is_real, mask[:, 1:]], dim=1)
        if modality in self.positions:
            values = values + self._position(modality, values.shape[1])
        return Sequences(values, mask)

    def fuse(self, sequences: Mapping[str, Sequences]) -> Tensor:
        """Embed the tokens of some modalities after they attended to one another: (B, E)."""
        values = torch.cat([s.values for s in sequences.values()], dim=1)
        mask = torch.cat([s.mask for s in sequences.values()], dim=1)
        if len(sequences) > 1 and "shared" not in self.transformers:
            raise ValueError(f"a transformer per modality cannot fuse {', '.join(sequences)}")
        transformer = _one_of(self.transformers, next(iter(sequences)))
        if self.cls_token is not None:
            cls_token = self.cls_token.to(values.dtype).expand(len(values), 1, -1)
            values = torch.cat([cls_token, values], dim=1)
            mask = F.pad(mask, (1, 0), value=True)
            return F.normalize(self.heads["shared"](transformer(values, mask)[:, 0]), dim=-1)
        fused = transformer(values, mask).split([s.values.shape[1] for s in sequences.values()], 1)
        views = []
        for (modality, sequence), output in zip(sequences.items(), fused, strict=True):
            head = _one_of(self.heads, modality)
            views.append(F.normalize(head(masked_mean(output, sequence.mask)), dim=-1))
        return torch.stack(views).mean(dim=0)

    def _position(self, modality: str, length: int) -> Tensor:
        positions = self.positions[modality]
        if length > len(positions):
            raise ValueError(
                f"a clip has {length} {modality} tokens, but there are positions for"
                f" {len(positions)}; raise model.modalities.{modality}.max_tokens"
            )
        return positions[:length]

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


def _one_of(modules: nn.ModuleDict, modality: str) -> nn.Module:
    return modules[modality if modality in modules else "shared"]


def _encoder(name: str, spec: Mapping[str, Any]) -> nn.Module | None:
    spec = dict(spec)
    if unknown := set(spec) - {"dim", "encoder", "max_tokens"}:
        raise ValueError(
            f"model.modalities.{name} has an unknown key {min(unknown)!r};"
            " choose from dim, encoder, max_tokens"
        )
    if ("dim" in spec) == ("encoder" in spec):
        raise ValueError(f"model.modalities.{name} needs either dim or encoder")
    if "dim" in spec:
        return None
    arguments = dict(spec["encoder"])
    kind = arguments.pop("name", None)
    if kind not in ENCODERS:
        raise ValueError(
            f"model.modalities.{name}.encoder.name: unknown {kind!r}; choose from {list(ENCODERS)}"
        )
    try:
        return ENCODERS[kind](**arguments)
    except TypeError as error:
        raise ValueError(f"model.modalities.{name}.encoder: {error}") from None


def _max_tokens(name: str, spec: Mapping[str, Any]) -> int:
    if "max_tokens" not in spec:
        raise ValueError(f"positional embeddings need model.modalities.{name}.max_tokens")
    return spec["max_tokens"]


def _small_parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(nn.init.trunc_normal_(torch.zeros(shape), std=0.02))
