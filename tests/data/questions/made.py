"""Small files of questions and images, made here."""

import json

import numpy as np
import pytest
from PIL import Image

COLOURS = {"red": (200, 0, 0), "green": (0, 200, 0), "blue": (0, 0, 200), "grey": (90, 90, 90)}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache of the test's own."""
    monkeypatch.setenv("FUSION_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "images"


def save_image(path, colour=(200, 0, 0), size=(12, 8), **how):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path, **how)
    return path


def write_easy(folder, split="train", images=4, more=()):
    """Write questions about plain images in easy-VQA's form: two for each."""
    rows = []
    for number in range(images):
        name = list(COLOURS)[number % len(COLOURS)]
        save_image(folder / split / "images" / f"{number}.png", COLOURS[name], (6, 6))
        rows.append(["what color is it?", name, number])
        rows.append(["is it red?", "yes" if name == "red" else "no", number])
    file = folder / split / "questions.json"
    file.write_text(json.dumps([*rows, *more]))
    return file


def vqa_content(subset="train2014", count=3):
    """Questions and annotations of VQA v2: question 10 * N about image N, ten answers."""
    rows = [
        {"question_id": 10 * n, "image_id": n, "question": f"Is it {n}?"} for n in range(1, count)
    ]
    questions = {"data_type": "mscoco", "data_subtype": subset, "questions": rows}
    marks = [
        {
            "question_id": row["question_id"],
            "image_id": row["image_id"],
            "question_type": "is it",
            "answer_type": "yes/no",
            "multiple_choice_answer": "yes",
            "answers": [
                {"answer": "yes" if k < 8 else "No", "answer_id": k + 1} for k in range(10)
            ],
        }
        for row in rows
    ]
    return questions, {"data_subtype": subset, "annotations": marks}


def write_vqa(folder, subset="train2014", count=3):
    """Write a subset of VQA v2 with its images; return a place as configs have it."""
    folder.mkdir(parents=True, exist_ok=True)
    names = f"v2_OpenEnded_mscoco_{subset}_questions.json", f"v2_mscoco_{subset}_annotations.json"
    files = dict(zip(("questions", "annotations"), (folder / name for name in names), strict=True))
    for file, content in zip(files.values(), vqa_content(subset, count), strict=True):
        file.write_text(json.dumps(content))
    for number in range(1, count):
        save_image(folder / subset / f"COCO_{subset}_{number:012d}.jpg")
    return {name: str(file) for name, file in files.items()}


def write_table(folder, *lines, name="train.csv"):
    file = folder / name
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def close(image, colour, most=3):
    """Whether all pixels of a (3, S, S) image have a colour, up to the loss of JPEG."""
    return np.abs(np.asarray(image).astype(int) - np.reshape(colour, (3, 1, 1))).max() <= most
