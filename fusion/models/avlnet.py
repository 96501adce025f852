"""AVLnet, AVLnet-Text and MCN: every modality is pooled to one vector; fusion is a sum at most.

Rouditchenko et al., arXiv:2006.09199; Chen et al., ICCV 2021, arXiv:2104.12671.

Shapes: B clips, M modalities, E embedding width.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fusion.modalities import members, spell
from fusion.models.davenet import check_keys
from fusion.models.pooled import AudioBranch, Pooled, TextAudioGate, TextBranch, VideoBranch
from fusion.tokens import Tokens

BRANCHES = ("text", "video", "audio")
RECONSTRUCTION = "reconstruction"


class AVLnet(nn.Module):
    """Embed each modality of a clip separately, or text and audio together.

    With ``video`` and ``audio`` it is AVLnet; with ``text`` as well, AVLnet-Text-Tri; with
    ``fuse_text_audio``, AVLnet-Text-Fused, which compares ``ta`` with ``v``. Embeddings are
    compared by dot product, in training and in ranking.

    Args:
        modalities: for each of ``text``, ``video``, ``audio`` that is used a dict: ``dim``, the
            width of its features; for ``audio`` ``dim`` or ``encoder``, see
            :class:`fusion.models.EAO`; for ``text`` ``max_tokens``, the words that sentences are
            padded to (default 20); for ``video`` ``max_tokens``: EAO's authors pad shorter clips
            with zeros to so many tokens. None removes a modality.
        embedding_dim: E.
        fuse_text_audio: make one embedding of text and audio.
        sums: combinations, such as ``va``, embedded as the sum of their parts; AVLnet-Text is
            fine-tuned with one.
        normalize_video: scale the maximum of the video tokens to unit length, as EAO's authors do.
            With one token for each clip (``data.max_video_tokens: 0``) the data sets do that, for
            each kind of features.
        mean_over_padding: in training average the sound over padding too, as in the published
            pre-training of MCN and AVLnet. EAO's authors, the fine-tuning of AVLnet, and every
            evaluation average over real sound only.

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
        gated = not fuse_text_audio
        self.branches = nn.ModuleDict()
        self.in_dims: dict[str, int] = {}
        self.pooled_dims: dict[str, int] = {}
        for name, spec in modalities.items():
            branch: VideoBranch | TextBranch | AudioBranch
            if name == "video":
                most = spec.get("max_tokens")
                branch = VideoBranch(spec["dim"], embedding_dim, normalize_video, most)
            elif name == "text":
                branch = TextBranch(spec["dim"], width, spec.get("max_tokens", 20), gated)
            else:
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
            inputs: for each modality the features of B clips; without it, all clips lack it.
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
        return self._embed(inputs, chosen)[0]

    @property
    def feature_projections(self) -> list[nn.Module]:
        """The projections whose inputs are features, and not what an encoder makes of them."""
        found: list[nn.Module] = []
        for branch in self.branches.values():
            encodes = isinstance(branch, AudioBranch) and branch.encoder is not None
            if isinstance(branch, VideoBranch | AudioBranch) and not encodes:
                found.append(branch.gate)
        return found

    def _embed(
        self, inputs: Mapping[str, Tokens], combinations: Mapping[str, Sequence[str]]
    ) -> tuple[dict[str, Tensor], dict[str, Pooled]]:
        """Compute the embeddings, and the outputs of the branches that they need."""
        needed = {name for names in combinations.values() for name in names}
        tokens = {name: self._tokens(name, inputs) for name in self.modalities if name in needed}
        branches = {name: self.branches[name](x) for name, x in tokens.items()}
        embeddings = {}
        for combination, names in combinations.items():
            parts = [branches[name][1] for name in names]
            gone = [~tokens[name].present[:, None] for name in names]
            if self.join is not None and combination in self.parts and len(names) > 1:
                joined = self.join(branches["text"][1], branches["audio"][1])
                parts, gone = [joined], [gone[0] | gone[1]]
            if not self.training:
                parts = [x.masked_fill(m, 0) for x, m in zip(parts, gone, strict=True)]
            alone = len(parts) == 1
            embeddings[combination] = parts[0] if alone else torch.stack(parts).sum(dim=0)
        return embeddings, branches

    def _tokens(self, name: str, inputs: Mapping[str, Tokens]) -> Tokens:
        if name in inputs:
            return inputs[name]
        like = next(iter(inputs.values()))
        values = like.values.new_zeros(0, self.in_dims[name])
        return Tokens(values, torch.zeros_like(like.lengths), torch.zeros_like(like.host_lengths))

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
            check_keys(name, modalities.get(name, {}), ("dim", "max_tokens"))
        if fused and len(modalities) < len(BRANCHES):
            raise ValueError("fuse_text_audio needs text, video and audio in model.modalities")
        if fused and embedding_dim % 2:
            raise ValueError(f"fuse_text_audio needs an even embedding_dim; got {embedding_dim}")


class MCN(AVLnet):
    """Embed each modality of a clip separately; in training, also reconstruct its pooled features.

    Args:
        modalities: see :class:`AVLnet`.
        embedding_dim: E.
        reconstruction_dim: hidden width of the reconstruction; 0: none.
        mean_over_padding: see :class:`AVLnet`; published as true.
    """

    def __init__(
        self,
        modalities: Mapping[str, Mapping[str, Any]],
        embedding_dim: int = 6144,
        reconstruction_dim: int = 1024,
        mean_over_padding: bool = True,
    ) -> None:
        super().__init__(modalities, embedding_dim, mean_over_padding=mean_over_padding)
        self.reconstruct = nn.ModuleDict(
            {
                name: nn.Sequential(
                    nn.Linear(embedding_dim, reconstruction_dim),
                    nn.ReLU(),
                    nn.Linear(reconstruction_dim, width),
                    nn.ReLU(),
                )
                for name, width in (self.pooled_dims.items() if reconstruction_dim else ())
            }
        )

    def forward(self, inputs: Mapping[str, Tokens], *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Embed a batch, see :meth:`AVLnet.forward`.

        In training it returns all combinations, and ``reconstruction`` (B, M): for each modality
        the mean squared error over its features.
        """
        if not (self.training and self.reconstruct):
            return super().forward(inputs, *args, **kwargs)
        embeddings, branches = self._embed(inputs, self.combinations)
        errors = [
            (self.reconstruct[name](embedding) - pooled).square().mean(dim=-1)
            for name, (pooled, embedding) in branches.items()
        ]
        return embeddings | {RECONSTRUCTION: torch.stack(errors, dim=1)}
