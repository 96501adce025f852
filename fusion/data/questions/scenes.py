"""The built-in pictures and questions as a data set."""

from __future__ import annotations

from fusion.data.datasets.dataset import SPLITS
from fusion.data.demo.questions import scenes_folder
from fusion.data.demo.questions.plan import SIMPLE
from fusion.data.questions.pictured import PicturedQuestions

SIDE = 64  # pixels of a picture


def scenes(
    pictures: int | None = None, image_size: int = SIDE, first_epochs: int = 0
) -> PicturedQuestions:
    """Open the built-in questions about pictures; draw the pictures on first use.

    ``pictures`` is the number of training pictures, see :func:`fusion.data.demo.scenes_folder`; all
    if not given. ``image_size`` is that of :class:`.PicturedQuestions`. Training
    begins with ``first_epochs`` epochs of simple pictures alone, which later are among the others,
    see :mod:`fusion.data.demo.questions.simple`; 0 leaves them out.
    """
    folder = scenes_folder(pictures)
    train, validation, test = (str(folder / f"{split}.csv") for split in SPLITS)
    return PicturedQuestions(
        train,
        validation,
        test,
        image_size=image_size,
        ceilings=str(folder / "ceilings.json"),
        simple=str(folder / f"{SIMPLE}.csv") if first_epochs else None,
        first_epochs=first_epochs,
    )
