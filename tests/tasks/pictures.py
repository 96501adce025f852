"""A tiny set of questions about pictures: plain colours, in a folder with its tables."""

import csv

import numpy as np
from PIL import Image

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 60), "blue": (40, 60, 220)}


def write_questions(folder, images=24):
    """Write pictures and train.csv, validation.csv and test.csv; return the folder."""
    (folder / "images").mkdir(parents=True)
    random = np.random.default_rng(0)
    for split, count in {"train": images, "validation": 6, "test": 9}.items():
        rows = []
        for number in range(count):
            colour = list(COLOURS)[number % 3]
            pixels = np.full((16, 16, 3), COLOURS[colour]) + random.normal(0, 8, (16, 16, 3))
            name = f"images/{split}{number}.png"
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / name)
            rows.append((f"{split}{number}-c", name, "what colour is it", colour))
            other = list(COLOURS)[random.integers(3)]
            right = "yes" if other == colour else "no"
            rows.append((f"{split}{number}-y", name, f"is it {other}", right))
        with open(folder / f"{split}.csv", "w", newline="") as file:
            csv.writer(file).writerows([("id", "image", "question", "answer"), *rows])
    return folder


def config_of(folder, output, **changes):
    """The overrides of the recipe vqa that train a tiny model on such a folder."""
    splits = ("train", "validation", "test")
    files = ", ".join(f"{split}: {folder}/{split}.csv" for split in splits)
    values = {
        "output": output,
        "data": f"{{name: questions, {files}, image_size: 16}}",
        "model.modalities.image.encoder.widths": "[8, 16]",
        "model.token_dim": 16,
        "model.embedding_dim": 32,
        "model.num_heads": 2,
        "model.num_blocks": 1,
        "text_encoder.dim": 8,
        "trainer.epochs": 8,
        "trainer.batch_size": 16,
        "trainer.learning_rate": 0.01,
        "trainer.warmup_steps": 5,
        "trainer.patience": "null",
        "evaluation.questions_in_report": 4,
    }
    return [f"{key}={value}" for key, value in (values | changes).items()]
