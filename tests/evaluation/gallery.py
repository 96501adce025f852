"""Clips with captions, and a script that embeds and ranks them on several processes.

    python tests/evaluation/gallery.py FOLDER

writes to FOLDER/RANK.pt what each process gets.
"""

import dataclasses
import os
import sys
import tempfile
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from fusion.data.captions.table import Caption
from fusion.data.datasets.dataset import ClipSet
from fusion.evaluation.embed import embed
from fusion.evaluation.retrieval import rank_directions
from fusion.models import EAO

SHOWS = [0, 0, 1, 2, 2, 2, 0, 3, 4, 5, 5]


class Captioned(ClipSet):
    """Clip 2 has no video, and caption 4 no text."""

    def __init__(self, shows=SHOWS):
        self.captions = [Caption(f"film{s}", 0.0, 1.0, f"text{i}") for i, s in enumerate(shows)]
        self.of, self.read = shows, []

    def __getitem__(self, index):
        self.read.append(index)
        clip = torch.Generator().manual_seed(self.of[index])
        video = torch.randn(3, 5, generator=clip)[: 0 if self.of[index] == 2 else 3]
        audio = torch.randn(2 + self.of[index], 4, generator=clip)
        return self.caption(index) | {"video": video, "audio": audio}

    def caption(self, index):
        own = torch.Generator().manual_seed(100 + index)
        return {"id": f"item{index}", "text": torch.randn(index % 4, 6, generator=own)}


def make_model():
    """Build a small EAO of all combinations."""
    torch.manual_seed(0)
    modalities = {"text": {"dim": 6}, "video": {"dim": 5}, "audio": {"dim": 4}}
    return EAO(modalities, ["t", "v", "a", "tv", "ta", "va"], 16, 8, 1, 2).eval()


def main(folder):
    """Embed and rank on this process and the others."""
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    if (place := Path(folder) / f"tmp{rank}").exists():  # as on machines of their own
        tempfile.tempdir = str(place)
    clips = Captioned()
    embedded = embed(make_model(), clips, batch_size=3, shows=clips.of, workers=rank)
    embedded = dataclasses.replace(embedded, shows=torch.tensor(clips.of))
    ranked = rank_directions(embedded, together=True)
    found = {
        "ids": embedded.ids,
        "present": dict(embedded.present),
        "embeddings": {c: embedded.embeddings[c].clone() for c in embedded.embeddings},
        "places": {way: list(map(torch.from_numpy, one.places)) for way, one in ranked.items()},
        "left": [p for p in os.listdir(tempfile.gettempdir()) if p.startswith("fusion-embed")],
    }
    torch.save(found, Path(folder) / f"{rank}.pt")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
