"""One measurement of ``tools/benchmark.py gallery``, with the package of any folder.

It runs by itself and imports nothing of ``tools``, so that it also measures an older version.
Usage: gallery_child.py JSON, whose keys are those of ``parse`` in ``gallery.py``.
"""

import dataclasses
import inspect
import json
import sys
import tempfile
import time

import numpy as np
import torch
from torch import nn

from fusion.data.captions.table import Caption
from fusion.data.datasets.dataset import ClipSet
from fusion.evaluation.embed import embed
from fusion.evaluation.retrieval import rank_directions

WORDS, VIDEO, FRAMES = 12, (12, 4096), (768, 40)
NAMES = ("text", "video", "audio")


class Drawn(ClipSet):
    """Clips with random features, drawn when they are read; captions follow clip by clip."""

    def __init__(self, clips, captions, simple):
        self.simple, self.of = simple, [i * clips // captions for i in range(captions)]
        self.captions = [Caption(f"{c}", 0.0, 1.0, f"{i}") for i, c in enumerate(self.of)]

    def __getitem__(self, index):
        """Draw an item."""
        clip = torch.Generator().manual_seed(self.of[index])
        video, audio = ((1, 8), (1, 8)) if self.simple else (VIDEO, FRAMES)
        shapes = {"video": video, "audio": audio}
        features = {name: torch.randn(shape, generator=clip) for name, shape in shapes.items()}
        return self.caption(index) | features

    def caption(self, index):
        """Draw the text of an item."""
        own = torch.Generator().manual_seed(10**6 + index)
        words, width = (1, 8) if self.simple else (WORDS, 300)
        return {"id": str(index), "text": torch.randn(words, width, generator=own)}


class Simple(nn.Module):
    """A linear layer for each combination: so embedding takes no time."""

    modalities = NAMES

    def __init__(self, combinations, width):
        super().__init__()
        self.combinations = {c: c for c in combinations}
        self.layers = nn.ModuleDict({c: nn.Linear(8 * len(c), width) for c in combinations})

    def forward(self, inputs, combinations=None):
        """Embed a batch."""
        letters = {name[0]: tokens.values for name, tokens in inputs.items()}
        chosen = self.combinations if combinations is None else combinations
        return {c: self.layers[c](torch.cat([letters[x] for x in c], dim=1)) for c in chosen}


def make_model(width, combinations):
    """Build EAO with DAVEnet, as wide as its embeddings."""
    from fusion.models import EAO

    widths = [w * width // 4096 for w in (128, 128, 256, 512, 1024, 2048, 4096)]
    encoder = {"name": "davenet", "version": 2, "num_frames": FRAMES[0], "widths": widths}
    modalities = {"text": {"dim": 300}, "video": {"dim": 4096}, "audio": {"encoder": encoder}}
    return EAO(modalities, combinations, width, width, num_heads=width // 64)


def rank_some(options):
    """Rank some queries among all clips, which are in a file; print one line of JSON."""
    from fusion.evaluation.ranking import Side, rank_both_ways
    from fusion.process import memory_at_peak

    count, width, queries = options["clips"], options["width"], options["queries"]
    generator = torch.Generator().manual_seed(0)
    with tempfile.NamedTemporaryFile() as file:
        file.truncate(4 * count * width)
        gallery = torch.from_file(file.name, shared=True, size=count * width).view(count, width)
        for rows in gallery.split(2**14):
            rows.normal_(generator=generator)
        noise = torch.randn(queries, width, generator=generator)
        asked, clips = gallery[:queries] + 2 * noise, torch.arange(count)
        print("start", flush=True)
        sys.stdin.readline()
        start, started = time.process_time(), time.perf_counter()
        sides = Side([asked]), Side([gallery])
        places, _ = rank_both_ways(*sides, (clips[:queries], clips), ways=(True, False))
        seconds = {"embed": 0.0, "rank": time.process_time() - start}
        wall = {"embed": 0.0, "rank": time.perf_counter() - started}
    np.savez(options["ranks"], ranks=places.ranks)
    found = {"cpu_s": seconds, "bytes": gallery.nbytes, "wall_s": wall}
    print(json.dumps(found | {"whole_process_bytes": memory_at_peak()}), flush=True)


def main():
    """Measure, and print one line of JSON."""
    options = json.loads(sys.argv[1])
    torch.set_num_threads(options["threads"])
    if options["queries"]:
        rank_some(options)
        return
    if options["processes"] > 1:
        torch.distributed.init_process_group("gloo")
    torch.manual_seed(0)
    combinations, width = options["combinations"], options["width"]
    model = Simple(combinations, width) if options["simple"] else make_model(width, combinations)
    clips, device = Drawn(options["clips"], options["captions"], options["simple"]), None
    first = batch_of(clips)
    if options.get("device") == "cuda":
        device, model = torch.device("cuda"), model.cuda()
        first = {name: tokens.to(device) for name, tokens in first.items()}
    model(first, list(combinations))
    known = inspect.signature(embed).parameters
    how = {"shows": clips.of, "workers": options.get("workers", 0)}
    how = {name: value for name, value in how.items() if name in known}
    together = "together" in inspect.signature(rank_directions).parameters
    print("start", flush=True)
    sys.stdin.readline()  # the memory before has been measured
    times = [(time.process_time(), time.perf_counter())]
    embedded = embed(model, clips, **how)
    embedded = dataclasses.replace(embedded, shows=torch.tensor(clips.of))
    if device is not None:
        torch.cuda.synchronize()
    times.append((time.process_time(), time.perf_counter()))
    ranked = {}
    is_main = not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0
    if together:
        ranked = rank_directions(embedded, device=device, together=True)
    elif is_main:
        ranked = rank_directions(embedded)
    times.append((time.process_time(), time.perf_counter()))
    cpu, wall = (
        {"embed": times[1][i] - times[0][i], "rank": times[2][i] - times[1][i]} for i in (0, 1)
    )
    if is_main:
        ranks = {name: found.places.ranks for name, found in ranked.items()}
        np.savez(options["ranks"], **ranks)
    found = {"cpu_s": cpu, "bytes": size_of(embedded), "wall_s": wall}
    if device is not None:
        found["gpu_bytes"] = torch.cuda.max_memory_allocated()
    print(json.dumps(found), flush=True)
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def batch_of(clips):
    """Read two items, to warm up."""
    from fusion.data.datasets.dataset import collate

    return collate([clips[0], clips[1]]).inputs


def size_of(embedded):
    """Count the bytes of embeddings, rows that are shared once."""
    rows = getattr(embedded.embeddings, "rows", embedded.embeddings)
    return sum(tensor.nbytes for tensor in rows.values())


if __name__ == "__main__":
    main()
