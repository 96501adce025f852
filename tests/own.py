"""The parts of a user, as short as they can be; configs name them ``tests.own:…``."""

import torch
import torch.nn.functional as F
from torch import nn

from fusion.data.captions.table import Caption
from fusion.data.datasets.dataset import ClipSet, Source
from fusion.interfaces import Loss

WORDS = ("red", "blue", "star", "ring", "bell", "spins")


class Words:
    """A text encoder without a state: a vector of 6 for each word."""

    def __init__(self, scale: float = 1.0):
        self.scale = scale

    def __call__(self, sentence):
        rows = [WORDS.index(word) for word in sentence.split() if word in WORDS]
        return self.scale * torch.eye(6)[torch.tensor(rows, dtype=torch.int64)]


class LearntWords(Words):
    """It learns nothing, and cannot say which words it does not know."""

    learns = True

    @classmethod
    def train(cls, sentences, seed, scale: float = 1.0):
        return cls(scale)


class Clips(ClipSet):
    def __init__(self, count, text_encoder, seed):
        draw = torch.Generator().manual_seed(seed)
        self.kinds = torch.randint(6, (count,), generator=draw).tolist()
        self.captions = [
            Caption(f"{i}", 0.0, 1.0, f"{WORDS[kind]} ring") for i, kind in enumerate(self.kinds)
        ]
        self.text_encoder = text_encoder

    def __getitem__(self, index):
        picture = torch.eye(6)[[self.kinds[index]]]
        text = self.text_encoder(self.captions[index].text)
        return {"id": str(index), "text": text, "video": picture}


class Data(Source):
    def __init__(self, count: int = 16):
        super().__init__({})
        self.count = count

    splits = ("train", "validation", "test")

    def clips(self, split, text_encoder=None):
        return Clips(self.count, text_encoder, self.splits.index(split))


class Model(nn.Module):
    def __init__(self, width: int = 8):
        super().__init__()
        self.modalities, self.combinations = ("text", "video"), ("t", "v")
        self.layers = nn.ModuleDict({name: nn.Linear(6, width) for name in self.modalities})

    def forward(self, inputs, combinations=None, skip_incomplete=False, seeds=None):
        named = {}
        for name, letter in zip(self.modalities, self.combinations, strict=True):
            if letter in (combinations or self.combinations) and name in inputs:
                padded, _ = inputs[name].pad()
                named[letter] = self.layers[name](padded.mean(dim=1))
        return named


class Nearest(Loss):
    combinations = ("t", "v")

    def __init__(self, modalities, temperature: float = 0.1):
        self.temperature = temperature

    def __call__(self, outputs, present):
        x, y = (F.normalize(outputs[name], dim=1) for name in self.combinations)
        scores = x @ y.T / self.temperature
        value = F.cross_entropy(scores, torch.arange(len(x)))
        return value, {"t|v": value.detach()}


class Frames(nn.Module):
    """An encoder of EAO: a token for each frame."""

    def __init__(self, width: int):
        super().__init__()
        self.in_dim, self.out_dim = 40, width
        self.layer = nn.Linear(40, width)

    def forward(self, features):
        return features.replace(self.layer(features.values))


CONFIG = {
    "data": {"name": "tests.own:Data"},
    "text_encoder": {"name": "tests.own:Words", "scale": 2.0},
    "model": {"name": "tests.own:Model"},
    "loss": {"name": "tests.own:Nearest"},
    "trainer": {"epochs": 1, "batch_size": 8, "learning_rate": 0.1},
    "evaluation": {"queries_in_report": 2},
}
