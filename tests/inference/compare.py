"""Compare what a model encodes with what evaluation embeds."""

import dataclasses

import torch
import torch.nn.functional as F
from accelerate import Accelerator

from fusion.data.datasets.dataset import collate
from fusion.evaluation.embed import embed
from fusion.modalities import members

COMBINATIONS = ["t", "v", "a", "tv", "ta", "va", "tva"]
ROUNDING = 1e-6  # of unit vectors in float32 whose sums are taken in another order


def equal(x, y):
    torch.testing.assert_close(x, y, rtol=0, atol=ROUNDING)


def at_one_time(clips, start, end):
    """The clips with one start and end for all, as a list of inputs has."""
    captions = [dataclasses.replace(c, start=start, end=end) for c in clips.captions]
    return dataclasses.replace(clips, captions=captions)


def by_evaluation(model, clips, combinations):
    """Embed clips as evaluation does, also in combinations that the model was not trained with."""
    embedded = embed(model.network, clips, Accelerator(cpu=True), 64)
    others = [c for c in combinations if c not in embedded.embeddings]
    with torch.no_grad():
        batch = collate([clips[place] for place in range(len(clips))]).to("cpu")
        more = model.network(batch.inputs, others) if others else {}
    return embedded.present, {**embedded.embeddings, **more}


def assert_as_evaluation(model, clips, combinations, batch_size):
    """Encode clips of one start and end, and compare them with what evaluation makes of them."""
    present, expected = by_evaluation(model, clips, combinations)
    times = {"start": clips.captions[0].start, "end": clips.captions[0].end}
    for combination in combinations:
        names = members(combination, model.modalities)
        there = torch.stack([present[name] for name in names]).any(dim=0).nonzero()
        places = there.flatten().tolist()
        assert len(places) > 5
        given = []
        for place in places:
            film = clips.folder / clips.captions[place].video
            given.append({"text": clips.captions[place].text, "video": film, "audio": film})
        found = model.encode(given, combination, batch_size=batch_size, **times)
        equal(found, F.normalize(expected[combination][places], dim=-1))
