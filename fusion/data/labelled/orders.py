"""The built-in order classes as a data set."""

from __future__ import annotations

from fusion.data.datasets.dataset import SPLITS
from fusion.data.demo.orders import CLASSES, PAIRS, orders_folder
from fusion.data.labelled.films import LabelledFilms


def order_classes(
    training_films: int | None = None,
    frames: int = 8,
    sampling: str = "segments",
    frame_size: int = 72,
    cache: bool | None = None,
) -> LabelledFilms:
    """Open the films of which only the order of frames tells the class; render them on first use.

    ``training_films`` is their number, see :func:`.orders_folder`; all if not given. The other
    arguments are those of :class:`.LabelledFilms`.
    """
    folder = orders_folder(training_films)
    train, validation, test = (str(folder / f"{split}.csv") for split in SPLITS)
    opened = LabelledFilms(
        train=train,
        validation=validation,
        test=test,
        frames=frames,
        sampling=sampling,
        frame_size=frame_size,
        cache=cache,
    )
    opened.class_names, opened.pairs = list(CLASSES), dict(PAIRS)
    return opened
