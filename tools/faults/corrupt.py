"""Train on clips of which a share cannot be read; measure speed and retrieval."""

import csv
import json
import random
import shutil
import statistics
import time

from fusion.data.demo import demo_corpus
from fusion.data.features.computed import compute_features, fields_of
from fusion.data.features.store import FeatureStore
from fusion.data.features.writer import StoreWriter
from tools.faults.runs import TRAIN, Launch, steps

EXTRACTOR = "descriptors"
SPLITS = ("train", "validation", "test")
NAN = b"\x00\x7e"  # float16


def try_corrupt(config, overrides, shares, films, folder):
    """Train once for each share of corrupt training clips; the test has none.

    Args:
        config: what is trained, on a feature store with a video for each clip.
        overrides: changes to it.
        shares: of the training clips, from 0 to 1.
        films: of the built-in corpus, of which the clips are cut.
        folder: for stores and runs.
    """
    clips = _write_store(demo_corpus(size=films), folder / "store")
    order, found = random.Random(0).sample(clips, len(clips)), []
    data = {"name": "videos", "store": "store", "max_bad": 1.0, "video_features": EXTRACTOR}
    data |= {split: f"{split}.csv" for split in SPLITS} | {"max_audio_frames": 256}
    for share in shares:
        place = folder / f"{share:g}"
        shutil.copytree(folder / "store", place / "store")
        for split in SPLITS:
            shutil.copy(folder / f"store.{split}.csv", place / f"{split}.csv")
        bad = order[: round(share * len(order))]
        _destroy(place / "store", bad)
        paths = {k: str(place / v) for k, v in data.items() if k in (*SPLITS, "store")}
        words = [f"data={json.dumps(data | paths)}", f"output={place / 'run'}", *overrides]
        begun = time.monotonic()
        launch = Launch([TRAIN, str(config), *words], 1, place / "errors")
        launch.finish()
        result = json.loads((place / "run" / "results.json").read_text())
        one = {
            "share": share,
            "clips": len(order),
            "corrupt": len(bad),
            "named": (place / "errors0").read_text().count("cannot be used"),
            "clips per second": statistics.median(
                row["clips_per_second"] for row in steps(place / "run")
            ),
            "seconds": time.monotonic() - begun,
            "R@1": {name: row["R@1"] for name, row in result["directions"].items()},
            "chance": result["chance"]["R@1"],
            "tested": result.get("counted"),
        }
        print({**one, "R@1": one["R@1"].get("t->va")}, flush=True)
        found.append(one)
    return {"films": films, "seen": found}


def _write_store(corpus, folder):
    """Write a store with a video for each clip, and its captions; list the training clips."""
    fields, training = fields_of(EXTRACTOR), []
    with StoreWriter(folder, fields, "clips") as writer:
        for split in SPLITS:
            with open(corpus / f"{split}.csv", newline="", encoding="utf-8") as file:
                rows = list(csv.DictReader(file))
            with open(folder.with_suffix(f".{split}.csv"), "w", newline="") as file:
                table = csv.writer(file)
                table.writerow(["video", "start", "end", "text"])
                for number, row in enumerate(rows):
                    name = f"{split}{number}"
                    start, end = float(row["start"]), float(row["end"])
                    features = compute_features(corpus / row["video"], EXTRACTOR)
                    writer.add(name, _cut(features, fields, start, end))
                    table.writerow([name, 0.0, end - start, row["text"]])
                    training += [name] if split == "train" else []
    return training


def _cut(features, fields, start, end):
    return {
        name: rows[
            int(start * fields[name].per_second) : max(1, int(end * fields[name].per_second))
        ]
        for name, rows in features.items()
    }


def _destroy(folder, names):
    """Overwrite all features of some videos with NaN."""
    store = FeatureStore(folder)
    for name in names:
        for field, about in store.fields.items():
            shard, rows, offset = store._place(name, field)
            if rows:
                with open(
                    folder / "shards" / f"{store.index.shards[shard]}.safetensors", "r+b"
                ) as file:
                    file.seek(offset)
                    file.write(NAN * (rows * about.width))
