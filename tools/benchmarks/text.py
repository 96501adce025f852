"""The text encoder of howto100m/eao_clip: its share of a step, counted; its CPU seconds, measured.

Counted is CLIP's text transformer (ViT-B/32) beside the paper's model, without weights. Measured is
one of random weights: sentence by sentence, as in data loading, and in batches, as beside a model.
"""

import functools
import time

import torch

from fusion.models import EAO
from fusion.models.text.language_models import LanguageModel
from fusion.models.text.tower import TextReader, TextTower
from fusion.tokens import Tokens
from tools.benchmarks.measure import count_flop
from tools.benchmarks.models import BANDS, FRAMES, VIDEO_TOKENS, make_loss

WORDS = 20  # of a sentence, the most that are kept
CLIP = {"hidden_size": 512, "intermediate_size": 2048, "num_attention_heads": 8}
CLIP |= {"num_hidden_layers": 12, "projection_dim": 512}
COUNTED = 64  # clips


def run(arguments, device):
    """Count the paper's step, measure a small encoder."""
    small = {"hidden_size": arguments.width, "intermediate_size": 4 * arguments.width}
    small |= {"projection_dim": arguments.width, "num_attention_heads": arguments.width // 64 or 1}
    encoder = RandomCLIP({**CLIP, **small})
    lengths = [1 + n % WORDS for n in range(arguments.batch)]
    texts = [" ".join(map(str, range(n, n + length))) for n, length in enumerate(lengths)]
    reader = TextReader(encoder)
    tokens = Tokens.pack([reader(text) for text in texts])

    def batches():
        TextTower(encoder, 0)(tokens, device)

    ways = {"plain": lambda: [encoder(text) for text in texts], "batches": batches}
    seconds = {name: [] for name in ways}
    for turn in range(arguments.repeats + 1):
        for name, way in ways.items():
            begun = time.process_time()
            way()
            if turn:
                seconds[name].append(time.process_time() - begun)
    ratio = sorted(p / b for p, b in zip(*seconds.values(), strict=True))[arguments.repeats // 2]
    tower, model = (count / COUNTED for count in count_step())
    return {
        "sentences": len(texts),
        "tokens": len(tokens.values),
        "seconds": seconds,  # of CPU
        "ratio": {"batches": ratio},
        "GFLOP_per_clip": {"text encoder": tower / 1e9, "step of the model": model / 1e9},
        "share_of_a_step": tower / (tower + model),
    }


def count_step():
    """Count the operations of the text encoder, and of a step of the model of the paper."""
    encoder = RandomCLIP(CLIP, "meta")
    length = WORDS + 1  # with the beginning
    ids = torch.zeros(COUNTED, length, dtype=torch.int64, device="meta")
    with torch.no_grad():
        tower = count_flop(lambda: encoder.states(ids))
    audio = {"name": "davenet", "version": 2, "num_frames": FRAMES, "batchnorm_group": 32}
    widths = {"text": {"dim": 512}, "video": {"dim": 512}, "audio": {"encoder": audio}}
    with torch.device("meta"):
        model = EAO(widths, ["t", "v", "a", "tv", "ta", "va"]).train()
    lengths = {"text": (WORDS, 512), "video": (VIDEO_TOKENS, 512), "audio": (FRAMES, BANDS)}
    inputs = {}
    for name, (count, width) in lengths.items():
        rows = torch.full((COUNTED,), count)
        values = torch.zeros(COUNTED * count, width, device="meta")
        inputs[name] = Tokens(values, rows.to("meta"), rows)
    loss = make_loss()

    def step():
        embeddings = model(inputs, loss.combinations, skip_incomplete=True)
        sum(x.sum() for x in embeddings.values()).backward()

    return tower, count_flop(step)


class RandomCLIP(LanguageModel):
    """CLIP's text transformer with random weights; a word is a number."""

    def __init__(self, sizes, device="cpu"):
        super().__init__({}, 20)
        self.sizes, self.device, self.width = sizes, torch.device(device), sizes["projection_dim"]

    @functools.cached_property
    def model(self):
        """Make the transformer."""
        import transformers

        torch.manual_seed(0)
        with self.device:
            made = transformers.CLIPTextModelWithProjection(
                transformers.CLIPTextConfig(**self.sizes)
            )
        return made.eval().requires_grad_(False)

    def _words(self, sentence):
        return sentence.split()

    def _ids(self, sentences):
        ids = [[0, *(int(word) % 49000 + 1 for word in text.split())] for text in sentences]
        return ids, [[False, *[True] * (len(text) - 1)] for text in ids]

    def states(self, ids):
        """Project the states of all tokens, as CLIPText does."""
        return self.model.text_projection(self.model.text_model(ids).last_hidden_state)
