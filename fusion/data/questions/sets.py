"""Published sets of questions by the names of their files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fusion.data.questions.pictured import PicturedQuestions

PUBLISHED = {"train": "train2014", "test": "val2014"}  # the answers of test2015 are secret


def vqa_v2(
    folder: str | None = None,
    train: str | Mapping[str, Any] | None = None,
    validation: str | Mapping[str, Any] | None = None,
    test: str | Mapping[str, Any] | None = None,
    images: str | Mapping[str, Any] | None = None,
    image_size: int = 224,
    num_answers: int | None = 3000,
    held_out: float = 0.05,
    bad: str = "missing",
    max_bad: float = 0.05,
) -> PicturedQuestions:
    """Open VQA v2 (Goyal et al., arXiv:1612.00837) as published.

    ``folder`` has the four JSON files of questions and annotations of train2014 and val2014, and
    usually the folders of images, which ``images`` names otherwise. The questions of val2014 are
    the test, as the answers of the published test are secret, and validation is held out of
    train2014. ``train``, ``validation`` and ``test`` name other files, such as
    ``{questions: FILE, annotations: FILE}``. The other arguments are those of
    :class:`.PicturedQuestions`.
    """
    given = {"train": train, "validation": validation, "test": test}
    if folder is not None:
        found = {split: _published(Path(folder), subset) for split, subset in PUBLISHED.items()}
        given |= {split: files for split, files in found.items() if given[split] is None}
    more = image_size, num_answers, held_out, bad, max_bad
    return PicturedQuestions(
        given["train"], given["validation"], given["test"], images or folder, *more
    )


def _published(folder: Path, subset: str) -> dict[str, str]:
    names = f"v2_OpenEnded_mscoco_{subset}_questions.json", f"v2_mscoco_{subset}_annotations.json"
    return dict(zip(("questions", "annotations"), (str(folder / n) for n in names), strict=True))


def easy_vqa(
    folder: str,
    image_size: int = 64,
    num_answers: int | None = None,
    held_out: float = 0.1,
    bad: str = "missing",
    max_bad: float = 0.05,
) -> PicturedQuestions:
    """Open easy-VQA (github.com/vzhou842/easy-VQA): shapes, 64 pixels wide, and 13 answers.

    ``folder`` has ``train`` and ``test``, each with ``questions.json`` and ``images``. Validation
    is held out of the training images. The other arguments are those of
    :class:`.PicturedQuestions`.
    """
    train, test = (str(Path(folder) / split / "questions.json") for split in ("train", "test"))
    more = image_size, num_answers, held_out, bad, max_bad
    return PicturedQuestions(train, None, test, None, *more)
