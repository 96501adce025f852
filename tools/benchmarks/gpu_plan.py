"""What ``fusion plan`` says of the measurements of ``tools/gpu_check.py``."""

import torch

from fusion.plan.clip import Clip, Part
from fusion.plan.count import FEW, count, count_flop
from fusion.plan.machine import Machine
from fusion.plan.predict import KEPT_IN_HALF, predict
from tools.benchmarks.gallery_child import make_model as make_gallery_model
from tools.benchmarks.models import (
    BANDS,
    FRAMES,
    TEXT_TOKENS,
    VIDEO_TOKENS,
    make_loss,
    make_model,
)

UTILISATION = 0.5  # of the measured matrix rate: fusion plan takes 400 of 989, an H100 reaches 798
META = torch.device("meta")
CLIP = Clip(
    {
        "text": Part(TEXT_TOKENS, (300,)),
        "video": Part(VIDEO_TOKENS, (4096,)),
        "audio": Part(FRAMES, (BANDS,)),
    },
    stored_bytes=0.0,  # clips are in memory
)


def machine_of(tflops, memory_gib):
    """Describe one device by its measured matrix rate."""
    rates = {"tflops": tflops, "utilisation": UTILISATION, "memory_gib": memory_gib}
    return Machine(**rates, clips_per_core=1e9)


def plan_step(size, batch, precision, machine):
    """Predict a step without an update: seconds, and bytes at its peak on a GPU."""
    counts = count(make_model(size, True, META), make_loss(), CLIP)
    half = precision == "bf16"
    kept = counts.kept_bytes * (KEPT_IN_HALF if half else 1.0) * batch
    weights = (4.0 + 4.0 + (2.0 if half else 0.0)) * counts.parameters  # and gradients, and a copy
    flop = batch * (counts.step_flop + batch * counts.loss_flop)
    return {"step_s": flop / machine.flops, "peak_GiB": (kept + weights) / 2**30}


def plan_chunks(size, batch, group, precision, machine):
    """Predict training with a batch that does not fit: the chunk that does, and the seconds."""
    counts = count(make_model(size, True, META, batchnorm_group=group), make_loss(), CLIP)
    trainer = {"batch_size": batch, "mixed_precision": precision, "optimizer": "adam"}
    made = predict(counts, CLIP, trainer, machine, None)
    return {"chunk": made.chunk, "step_s": made.step}


def plan_embedding(clips, captions, width, machine):
    """Predict the seconds of embedding clips and their captions; nothing is read or ranked."""
    with META:
        model = make_gallery_model(width, ["t", "v", "a", "tv", "ta", "va"]).eval()
    inputs = CLIP.batch(FEW)
    text = {"text": inputs.pop("text")}

    def embed_clips():
        model.embed_tokens(model.tokenize(inputs), ["v", "a", "va"])

    def embed_captions():  # the tokens of a clip are there already
        model.embed_tokens(model.tokenize(text) | tokens, ["t", "tv", "ta"])

    with torch.no_grad():
        tokens = model.tokenize(inputs)
        flop = clips / FEW * count_flop(embed_clips)
        flop += captions / FEW * count_flop(embed_captions)
    return {"embed_s": flop / machine.flops}
