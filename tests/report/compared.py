"""Finished runs as training leaves them, written without training: what compare.py reads."""

import json

import numpy as np
import pytest
import torch
import yaml

from fusion.commands.compare import compare
from fusion.config import ConfigError
from fusion.evaluation.embed import Embedded
from fusion.evaluation.ranking import Places
from fusion.evaluation.retrieval import Ranked, retrieval_table
from fusion.report.layout import FORMAT
from fusion.report.runs import pack_scores
from fusion.tasks.retrieval.result import describe_evaluation
from tests.tiny import CONFIG

COST = {
    "parameters": 1000,
    "gflop_per_clip": 0.5,
    "training_seconds": 60.0,
    "peak_memory_bytes": 2**30,
    "training_clips": 640,
    "device": "cpu",
    "processes": 1,
    "threads": 2,
}
OTHER = {"num_heads": 4}  # of another method
SIZE = 40  # clips
PROTOCOL = "all: every clip is a query and a candidate"
READ_FROM = "demo/test.csv, video features: descriptors"


def random_ranks(size, share, seed=0):
    """Ranks of which about this share is 1."""
    generator = np.random.default_rng([seed, int(1000 * share)])
    return np.where(generator.random(size) < share, 1.0, generator.integers(2, 30, size))


def write_run(
    folder,
    ranks,
    *,
    seed=0,
    ids=None,
    shows=None,
    asked=None,
    texts=None,
    protocol=PROTOCOL,
    read_from=READ_FROM,
    counted=None,
    split="test",
    by_cosine=None,
    ceiling=None,
    cost=None,
    **changes,
):
    """Write a run whose directions have these ranks, each of all its queries in their order.

    ``asked`` names, by direction, the places of the items that asked; all if not given.
    ``changes`` are to the config, such as ``model={"token_dim": 16}`` or ``data_root="x"``.
    """
    size = len(ids or shows or max(ranks.values(), key=len))
    shows = torch.tensor(shows if shows is not None else range(size))
    present = {name: torch.ones(size).bool() for name in ("text", "video", "audio")}
    names = tuple(ids or (f"clip{i}" for i in range(size)))
    similarity = "dot" if by_cosine else "cosine"
    texts = tuple(texts or (f"text of {name}" for name in names))
    embedded = Embedded(names, {}, present, shows, similarity)
    counted = counted or embedded.num_clips

    def ranked(ranks):
        found = {}
        for way, places in ranks.items():
            by_caption = "t" in way.partition("->")[0]
            every = torch.arange(size)
            rows = every if by_caption else embedded.one_per_clip(every)
            rows = torch.tensor(asked[way]) if asked and way in asked else rows
            assert len(rows) == len(places), way
            values = np.asarray(places, float)
            ties = Places(values, np.rint(2 * (values % 1)), np.ones(len(values)))
            found[way] = Ranked(values, rows, every, shows[rows], by_caption, ties)
        return found

    captions = embedded.captions
    table = retrieval_table(ranked(ranks), counted, captions)
    cosine = retrieval_table(ranked(by_cosine), counted, captions) if by_cosine else None
    said = f"{protocol}; {read_from}"
    result = describe_evaluation(split, said, embedded, table, ceiling, counted, by_cosine=cosine)
    result["protocol_parts"] = {"rule": protocol, "data": read_from}
    rows = {way: (found.ranks, found.rows.numpy()) for way, found in ranked(ranks).items()}
    packed = pack_scores(names, embedded.clips.numpy(), texts, rows, kind="ranks")
    return write_files(folder, result, packed, COST | (cost or {}), seed=seed, **changes)


def write_files(folder, result, packed, cost=COST, *, seed=0, **changes):
    """Write what a comparison reads of a run."""
    config = CONFIG | {"output": str(folder), "seed": seed, "resume": False, "overwrite": False}
    config |= {"data_root": None, "init": None}
    for key, value in changes.items():
        config[key] = CONFIG[key] | value if isinstance(value, dict) else value
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "results.json").write_text(json.dumps(result))
    (folder / "cost.json").write_text(json.dumps({"format": FORMAT} | cost))
    (folder / "ranks.npz").write_bytes(packed)
    return str(folder)


def first(share, size=SIZE):
    """Ranks of which the first share is 1; a tie for the first place is none."""
    return np.where(np.arange(size) < share * size, 1.0, 1.5)


class Compared:
    """Runs in a folder, given to ``compare`` in the order in which they are written."""

    def __init__(self, folder):
        self.folder, self.words = folder, []

    def run(self, name_of_folder, shares, name=None, **how):
        ranks = {w: first(s) if isinstance(s, float) else s for w, s in shares.items()}
        path = write_run(self.folder / name_of_folder, ranks, **how)
        self.words.append(f"{name}={path}" if name else path)
        return path

    def __call__(self, **options):
        return compare(self.words, self.folder / "out", **options)

    def refused(self, match, **options):
        with pytest.raises(ConfigError, match=match) as caught:
            self(**options)
        assert not (self.folder / "out").exists()
        return str(caught.value)
