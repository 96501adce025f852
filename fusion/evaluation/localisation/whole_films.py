"""Find a whole film by one of its captions, or by all of them (MCN, arXiv:2104.12671).

Ties count as their mean place, and as the expected value in votes.

Shapes: N captions, M clips, F films.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fusion.evaluation.localisation.assignment import Scores

Numbers = NDArray[np.int64]
Floats = NDArray[np.float64]


def best_of_films(scores: Scores, clip_films: Numbers, films: int) -> Scores:
    """Score each film by its best clip.

    Args:
        scores: (N, M) of captions and clips.
        clip_films: (M,) the film of each clip.
        films: F; a film without clips scores minus infinity.

    Returns:
        (N, F).
    """
    best = np.full((len(scores), films), -np.inf, scores.dtype)
    order = np.argsort(clip_films, kind="stable")
    names, starts = np.unique(clip_films[order], return_index=True)
    if len(names):
        best[:, names] = np.maximum.reduceat(scores[:, order], starts, axis=1)
    return best


def ranks_of_captions(best: Scores, caption_films: Numbers) -> Floats:
    """Rank films for single captions: (N,) the place of each caption's own film, from 1.

    ``best`` (N, F) is that of :func:`best_of_films`, ``caption_films`` (N,) the right ones.
    """
    return _places(best, caption_films)


def ranks_of_clips(scores: Scores, clip_films: Numbers, caption_films: Numbers) -> Floats:
    """Rank clips for single captions: (N,) the place of the best clip of the right film, from 1.

    MCN's code counts so: R@5 asks whether one of the best five clips is of the right film. The
    first place is the same as that of :func:`ranks_of_captions`.
    """
    own = clip_films[None, :] == caption_films[:, None]
    right = np.where(own, scores, -np.inf).max(axis=1, keepdims=True, initial=-np.inf)
    better = (scores > right).sum(axis=1)
    tied = ((scores == right) & ~own).sum(axis=1)
    ranks = 1.0 + better + tied / 2
    ranks[~own.any(axis=1)] = np.inf
    return ranks


def ranks_of_all_captions(best: Scores, caption_films: Numbers) -> Floats:
    """Rank films for all captions of a film: (F',) places, for the F' films with captions.

    A film scores the mean over captions of its best clip for each.
    """
    films = np.unique(caption_films)
    means = [best[caption_films == film].mean(axis=0) for film in films]
    return _places(np.stack(means), films) if means else np.zeros(0)


def votes_won(best: Scores, caption_films: Numbers, k: int) -> Floats:
    """Let captions vote: each gives a vote to its ``k`` best films, and those of most votes win.

    Returns:
        (F',) for the films with captions, 1 if the film is among the ``k`` with most votes. Where
        films tie for the last places, whether of a caption or of the votes, each gets its share,
        as if places were drawn.
    """
    films = np.unique(caption_films)
    shares = _shares(best, k)
    counts = [shares[caption_films == film].sum(axis=0) for film in films]
    if not counts:
        return np.zeros(0)
    totals = np.round(np.stack(counts), 9)  # sums of shares have rounding errors
    won: Floats = _shares(totals, k, above=0.0)[np.arange(len(films)), films]
    return won


def _places(scores: Scores, right: Numbers) -> Floats:
    """Return the place of column ``right[i]`` in row i, from 1; ties share the mean."""
    own = scores[np.arange(len(scores)), right][:, None]
    places = 1.0 + (scores > own).sum(axis=1) + ((scores == own).sum(axis=1) - 1) / 2
    places[np.isneginf(own[:, 0])] = np.inf
    return places


def _shares(scores: Scores, k: int, above: float = -np.inf) -> Floats:
    """Give each of the ``k`` highest of each row 1, and its share where some tie for the last.

    Only scores higher than ``above`` take part.
    """
    k = min(k, scores.shape[1])
    last = -np.partition(-scores, k - 1, axis=1)[:, k - 1 : k]
    better, tied = scores > last, scores == last
    left = k - better.sum(axis=1, keepdims=True)
    shares = np.where(better, 1.0, tied * left / tied.sum(axis=1, keepdims=True))
    return np.where(scores > above, shares, 0.0)
