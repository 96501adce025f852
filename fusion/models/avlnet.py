"""AVLnet and AVLnet-Text: every modality is pooled to one vector; fusion is a sum at most.

Rouditchenko et al., arXiv:2006.09199.

Shapes: B clips, E embedding width.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fusion.modalities import members, spell
from fusion.models.pooled import AudioBranch, Pooled, TextAudioGate, TextBranch, VideoBranch
from fusion.tokens import Tokens

BRANCHES = ("text", "video", "audio")


class AVLnet(nn.Module):
    """Embed each modality of a clip separately, or text and audio together.

    With ``video`` and ``audio`` it is AVLnet; with ``text`` as well, AVLnet-Text-Tri; with
    ``fuse_text_audio``, AVLnet-Text-Fused, which compares ``ta`` with ``v``.

    Args:
        modalities: for each of ``text``, ``video``, ``audio`` that is used a dict: ``dim``, the
            width of its features; for ``audio`` ``dim`` or ``encoder``, see
            :class:`fusion.models.EAO`; for ``text`` ``max_tokens``, the words that sentences are
            padded to (default 20); for ``video`` ``max_tokens``, see
            :class:`fusion.models.pooled.VideoBranch`. None removes a modality.
        embedding_dim: E.
        fuse_text_audio: make one embedding of text and audio.
        sums: combinations, such as ``va``, embedded as the sum of their parts; AVLnet-Text is
            fine-tuned with one.
        normalize_video: see :class:`fusion.models.pooled.VideoBranch`.
        mean_over_padding: see :class:`fusion.models.pooled.AudioBranch`.

    Attributes:
        combinations: the modalities of each combination that it embeds.
        similarity: ``dot``, in training and in ranking: the lengths of embeddings count.

    Raises:
        ValueError: the arguments contradict one another; the message says which.
    """

    similarity = "dot"

    def __init__(
        self,
        modalities: Mapping[str, Mapping[str, Any]],
        embedding_dim: int = 4096,
        fuse_text_audio: bool = False,
        sums: Sequence[str] = (),
        normalize_video: bool = False,
        mean_over_padding: bool = False,
    ) -> None:
        super().__init__()
        modalities = {name: spec for name, spec in modalities.items() if spec is not None}
        self.modalities = tuple(modalities)
        self._check(modalities, embedding_dim, fuse_text_audio)
        alone = [(name,) for name in modalities]
        groups = [("text", "audio"), ("video",)] if fuse_text_audio else alone
        self.parts = {spell(names): names for names in groups}
        summed = [members(c, self.modalities) for c in sums]
        self.combinations = self.parts | {spell(names): names for names in summed}
        if fuse_text_audio and sums:
            raise ValueError("sums have no parts where text and sound are fused; leave them out")
        # Fused, text and sound share the width and the gate.
        width = embedding_dim // 2 if fuse_text_audio else embedding_dim
        self.branches = nn.ModuleDict()
        self.in_dims: dict[str, int] = {}
        self.pooled_dims: dict[str, int] = {}
        for name, spec in modalities.items():
            branch: VideoBranch | TextBranch | AudioBranch
            if name == "video":
                most = spec.get("max_tokens")
                branch = VideoBranch(spec["dim"], embedding_dim, normalize_video, most)
            elif name == "text":
                words = spec.get("max_tokens", 20)
                branch = TextBranch(spec["dim"], width, words, gated=not fuse_text_audio)
            else:
                gated = not fuse_text_audio
                branch = AudioBranch(spec, width, gated, mean_over_padding)
            self.branches[name] = branch
            self.in_dims[name], self.pooled_dims[name] = branch.in_dim, branch.pooled_dim
        self.join = TextAudioGate(width, embedding_dim) if fuse_text_audio else None

    def forward(
        self,
        inputs: Mapping[str, Tokens],
        combinations: Iterable[str] | None = None,
        skip_incomplete: bool = False,
        seeds: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Embed a batch.

        Args:
            inputs: see :meth:`fusion.models.EAO.forward`.
            combinations: which to compute; all if not given.
            skip_incomplete: ignored; accepted for compatibility with EAO.
            seeds: ignored; nothing is random.

        Returns:
            For each combination (B, E) embeddings, not normalised. In evaluation they are zeros for
            a clip that lacks a modality, and so add nothing to a sum.
        """
        words = self.combinations if combinations is None else combinations
        chosen = {spell(names): names for names in (members(c, self.modalities) for c in words)}
        if unknown := set(chosen) - set(self.combinations):
            raise ValueError(
                f"this model does not embed the combination {min(unknown)!r}; choose from"
                f" {', '.join(self.combinations)}"
            )
        needed = {name for names in chosen.values() for name in names}
        tokens = {name: self._tokens(name, inputs) for name in self.modalities if name in needed}
        branches = {name: self.branches[name](x) for name, x in tokens.items()}
        return {c: self._embed(c, names, tokens, branches) for c, names in chosen.items()}

    def _embed(
        self,
        combination: str,
        names: Sequence[str],
        tokens: Mapping[str, Tokens],
        branches: Mapping[str, Pooled],
    ) -> Tensor:
        embeddings = [branches[name][1] for name in names]
        if not self.training:
            gone = [~tokens[name].present[:, None] for name in names]
            embeddings = [x.masked_fill(m, 0) for x, m in zip(embeddings, gone, strict=True)]
        if self.join is not None and combination in self.parts and len(names) > 1:
            joined = self.join(branches["text"][1], branches["audio"][1])
            return joined if self.training else joined.masked_fill(gone[0] | gone[1], 0)
        return embeddings[0] if len(embeddings) == 1 else torch.stack(embeddings).sum(dim=0)

    def _tokens(self, name: str, inputs: Mapping[str, Tokens]) -> Tokens:
        if name in inputs:
            return inputs[name]
        like = next(iter(inputs.values()))
        values = like.values.new_zeros(0, self.in_dims[name])
        lengths, host_lengths = (torch.zeros_like(x) for x in (like.lengths, like.host_lengths))
        return Tokens(values, lengths, host_lengths)

    def _check(
        self, modalities: Mapping[str, Mapping[str, Any]], embedding_dim: int, fused: bool
    ) -> None:
        if unknown := set(modalities) - set(BRANCHES):
            raise ValueError(
                f"model.modalities: this model has no branch for {min(unknown)!r}; choose from"
                f" {', '.join(BRANCHES)}"
            )
        if len(modalities) < 2:
            raise ValueError(f"model.modalities needs two or more of {', '.join(BRANCHES)}")
        for name in ("text", "video"):
            if name in modalities and "dim" not in modalities[name]:
                raise ValueError(f"model.modalities.{name} needs dim, the width of its features")
            if unknown := set(modalities.get(name, ())) - {"dim", "max_tokens"}:
                raise ValueError(
                    f"model.modalities.{name} has an unknown key {min(unknown)!r};"
                    " choose from dim, max_tokens"
                )
        if fused and len(modalities) < len(BRANCHES):
            raise ValueError("fuse_text_audio needs text, video and audio in model.modalities")
        if fused and embedding_dim % 2:
            raise ValueError(f"fuse_text_audio needs an even embedding_dim; got {embedding_dim}")
