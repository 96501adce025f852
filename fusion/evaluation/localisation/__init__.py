"""When steps happen in films, and which film some captions are of: rules and metrics.

They take matrices of scores, so any model can be measured by them.
"""

from fusion.evaluation.localisation.alignment import align, compare_segments, runs_of
from fusion.evaluation.localisation.assignment import assign_best, assign_in_order, label_seconds
from fusion.evaluation.localisation.recall import (
    average_precision,
    chance_best,
    chance_in_order,
    mask_of,
    steps_found,
)
from fusion.evaluation.localisation.whole_films import (
    best_of_films,
    ranks_of_all_captions,
    ranks_of_captions,
    ranks_of_clips,
    votes_won,
)

__all__ = ["align", "assign_best", "assign_in_order", "average_precision", "best_of_films"]
__all__ += ["chance_best", "chance_in_order", "compare_segments", "label_seconds", "mask_of"]
__all__ += ["ranks_of_all_captions", "ranks_of_captions", "ranks_of_clips", "runs_of"]
__all__ += ["steps_found", "votes_won"]
