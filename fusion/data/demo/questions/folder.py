"""The built-in pictures and questions on disk: rendered on first use, whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from fusion.data.demo.corpus import render_once, write_csv
from fusion.data.demo.plan import SPLITS
from fusion.data.demo.questions.ceilings import ceilings
from fusion.data.demo.questions.draw import draw_picture
from fusion.data.demo.questions.plan import SETS, VERSION, Picture, check_images, plan_pictures
from fusion.data.media.encode import encode_png
from fusion.files import cache_folder, replace_folder

COLUMNS = ("id", "image", "question", "answer", "question_type", "answer_type")
BYTES_PER_PICTURE = 14_000  # more than a picture and its questions take


def scenes_folder(images: int | None = None, *, cache: str | Path | None = None) -> Path:
    """Return the folder of the built-in pictures and questions; render it on first use.

    The folder holds::

        images/*.png                       64 x 64 pixels
        train.csv validation.csv test.csv  id, image (path from here), question, answer,
                                           question_type, answer_type (yes/no, number or other)
        simple.csv                         the same, of simple pictures
        ceilings.json                      for each split and question type, see `ceilings.py`
        version.json

    ``images`` is the number of training pictures, a multiple of 12, and of simple ones; the other
    splits have as many, at most 432 and 864; None: 5,832 of them. ``cache`` is the parent folder.

    Raises:
        CorpusError: the disk is full.
        ValueError: ``images`` is not a possible number.
    """
    check_images(images)
    name = f"questions-v{VERSION}" if images is None else f"questions-v{VERSION}-{images}"
    folder = Path(cache or cache_folder()) / name
    if not (folder / "version.json").is_file():
        pictures = plan_pictures(images)
        render_once(folder, BYTES_PER_PICTURE * len(pictures), lambda: _render(folder, pictures))
    return folder


def _render(folder: Path, pictures: Sequence[Picture]) -> None:
    with replace_folder(folder) as new:
        (new / "images").mkdir()
        for picture in tqdm(pictures, desc="rendering the built-in pictures", unit="picture"):
            (new / picture.path).write_bytes(encode_png(draw_picture(picture)))
        parts = {name: [p for p in pictures if p.split == name] for name in SETS}
        for split, some in parts.items():
            write_csv(new / f"{split}.csv", COLUMNS, rows_of(some))
        scores = {split: ceilings(parts[split]) for split in SPLITS}
        (new / "ceilings.json").write_text(json.dumps(scores, indent=1))
        version = {"version": VERSION, "pictures": len(pictures)}
        (new / "version.json").write_text(json.dumps(version))


def rows_of(pictures: Sequence[Picture]) -> list[dict[str, object]]:
    """Make the rows of a csv file, one for each question."""
    return [
        {
            "id": f"{picture.split}_{picture.index:05d}_{number}",
            "image": picture.path,
            "question": question.text,
            "answer": answer,
            "question_type": question.type,
            "answer_type": _answer_type(question.answers),
        }
        for picture in pictures
        for number, (question, answer) in enumerate(picture.asked)
    ]


def _answer_type(answers: Sequence[str]) -> str:
    """Name the kind of answers as VQA does."""
    if "yes" in answers:
        return "yes/no"
    return "number" if answers[0].isdigit() else "other"
