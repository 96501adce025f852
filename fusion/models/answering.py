"""Answer questions about what is seen and heard: EAO's embedding, and a head over the answers.

Shapes: B questions, E embedding width, K answers, H heads, P image tokens.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from fusion.modalities import letters_of, spell
from fusion.models.eao import EAO
from fusion.tokens import Tokens, true_places

FUSIONS = ("transformer", "concatenation", "product", "late")
ANSWERS = "answers"  # name of the output
WAVES, LONGEST = 8, 100.0  # of the places of words


class WordOrder(nn.Module):
    """Add to the vector of each word its place in the question: (T, D) -> (T, D).

    Sines and cosines of the place (Vaswani et al., arXiv:1706.03762) are projected to the width of
    the vectors.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.project = nn.Linear(2 * WAVES, dim)

    def forward(self, words: Tokens) -> Tokens:
        """Add the places."""
        values, longest = words.values, max(words.longest, 1)
        places = true_places(words.mask, len(values)) % longest  # (T,)
        lengths = LONGEST ** (torch.arange(WAVES, device=values.device) / WAVES)
        angles = places[:, None] / lengths
        waves = torch.cat([angles.sin(), angles.cos()], dim=-1).to(values.dtype)
        return words.replace(values + self.project(waves))


class AnswerModel(nn.Module):
    """Score K answers for each question.

    All modalities, the question among them, are embedded by EAO (arXiv:2112.04446). A small
    perceptron, the head, scores the answers.

    Args:
        modalities: see :class:`fusion.models.EAO`; the question is ``text``.
        num_answers: K.
        fusion: how the modalities come together: ``transformer``, EAO's embedding of all; or, of
            embeddings of single modalities, ``concatenation``, ``product``, element by element
            (arXiv:1505.00468), or ``late``, a head for each and the mean of their scores.
        hidden_dim: of the heads; 2 E if not given.
        embedding: the other arguments of EAO.

    Raises:
        ValueError: the arguments contradict one another; the message says which.
    """

    def __init__(
        self,
        modalities: Mapping[str, Mapping[str, Any]],
        num_answers: int = 1,
        fusion: str = "transformer",
        token_dim: int = 64,
        embedding_dim: int = 128,
        hidden_dim: int | None = None,
        num_blocks: int = 1,
        num_heads: int = 4,
        mlp_ratio: float = 2.0,
        final_norm: bool = True,
        dropout: float = 0.0,
        pool: str = "mean",
        init_std: float | None = 0.02,
        token_norm: bool = True,
        projection: str = "gated",
    ) -> None:
        super().__init__()
        if fusion not in FUSIONS:
            raise ValueError(f"model.fusion: unknown {fusion!r}; choose from {', '.join(FUSIONS)}")
        given = {name: spec for name, spec in modalities.items() if spec is not None}
        if not given:
            raise ValueError("model.modalities is empty; name text, image or others")
        names = letters_of(given).values()  # in this order tokens stand in the transformer
        self.fusion = fusion
        together = spell(names)
        combinations = [together] if fusion == "transformer" else list(together)
        self.eao = EAO(
            {name: given[name] for name in names},
            combinations,
            token_dim=token_dim,
            embedding_dim=embedding_dim,
            num_blocks=num_blocks,
            num_heads=num_heads,
            mlp_ratio=mlp_ratio,
            final_norm=final_norm,
            dropout=dropout,
            pool=pool,
            init_std=init_std,
            token_norm=token_norm,
            projection=projection,
        )
        self.modalities = self.eao.modalities
        # EAO itself does not know the order of words; transformers that read texts do.
        width = (given.get("text") or {}).get("dim")
        self.word_order = WordOrder(width) if width else None
        wide = embedding_dim * (len(names) if fusion == "concatenation" else 1)
        heads = list(self.eao.combinations) if fusion == "late" else [ANSWERS]
        hidden = hidden_dim or 2 * embedding_dim
        self.heads = nn.ModuleDict({name: _head(wide, hidden, num_answers) for name in heads})

    @property
    def num_answers(self) -> int:
        """K."""
        return int(next(iter(self.heads.values()))[-1].out_features)  # type: ignore[index]

    def forward(
        self, inputs: Mapping[str, Tokens], seeds: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Score the answers to B questions.

        Args:
            inputs: for each modality the features of B questions; a question may lack some.
            seeds: (B,) int64, for the dropout of each; drawn by torch if not given.

        Returns:
            ``answers``: (B, K) scores, before softmax or sigmoid.
        """
        parts = self.eao(self._ordered(inputs), seeds=seeds)
        if self.fusion == "late":
            scores = [head(parts[name]) for name, head in self.heads.items()]
            return {ANSWERS: torch.stack(scores).mean(dim=0)}
        rows = list(parts.values())
        if self.fusion == "concatenation":
            joined = torch.cat(rows, dim=-1)
        else:
            joined = torch.stack(rows).prod(dim=0)
        return {ANSWERS: self.heads[ANSWERS](joined)}

    def _ordered(self, inputs: Mapping[str, Tokens]) -> Mapping[str, Tokens]:
        if self.word_order is None or "text" not in inputs:
            return inputs
        return {**inputs, "text": self.word_order(inputs["text"])}

    @torch.no_grad()
    def look(self, inputs: Mapping[str, Tokens]) -> Tensor | None:
        """Say where in the image the question looked, for one question.

        Returns:
            (P,) the attention of the question's tokens to those of the image in the last block, the
            mean over tokens and heads, whose sum is 1; None if the question or image is missing or
            no transformer joins them.
        """
        shared: Any = self.eao.transformers["shared"]
        blocks, projections = shared.blocks, self.eao.token_projections
        wanted = ("text", "image")
        if self.fusion != "transformer" or not blocks or not {*wanted} <= {*self.modalities}:
            return None
        attention = blocks[-1].attention
        with contextlib.ExitStack() as stack:
            tokens = {m: stack.enter_context(outputs_of(projections[m])) for m in self.modalities}
            seen = stack.enter_context(outputs_of(attention.qkv))
            self.eao(self._ordered(inputs))
        lengths = {name: sum(map(len, found)) for name, found in tokens.items()}
        if not all(lengths[name] for name in wanted):
            return None
        places, first = {}, 0
        for name, length in lengths.items():  # one masking token stands for a missing modality
            places[name] = slice(first, first := first + max(length, 1))
        q, k, _ = rearrange(seen[0], "n (qkv h d) -> qkv h n d", qkv=3, h=attention.num_heads)
        scores = q[:, places["text"]] @ k.mT * q.shape[-1] ** -0.5
        weights = scores.softmax(dim=-1)[..., places["image"]].mean(dim=(0, 1))  # (P,)
        return weights / weights.sum()


def _head(in_dim: int, hidden_dim: int, num_answers: int) -> nn.Sequential:
    return nn.Sequential(
        nn.LayerNorm(in_dim),
        nn.Linear(in_dim, hidden_dim),
        nn.GELU(),
        nn.Linear(hidden_dim, num_answers),
    )


@contextlib.contextmanager
def outputs_of(module: nn.Module) -> Iterator[list[Tensor]]:
    """Record what a module returns."""
    seen: list[Tensor] = []
    hook = module.register_forward_hook(lambda module, given, output: seen.append(output))
    try:
        yield seen
    finally:
        hook.remove()
