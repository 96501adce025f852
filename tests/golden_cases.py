"""The published models' numbers: how a case is read and how its weights are made."""

import json
import math
import zlib
from pathlib import Path

import numpy as np
import torch

from fusion.convert import convert_name, convert_weights
from fusion.losses import CombinatorialLoss
from fusion.models import EAO
from fusion.tokens import Tokens

GOLDEN = Path(__file__).parent / "golden"
NAMES = {"t": "text", "v": "video", "a": "audio"}


def case_names(prefix):
    return sorted(path.stem for path in GOLDEN.glob(f"{prefix}*.json"))


def read_case(name):
    return json.loads((GOLDEN / f"{name}.json").read_text()), np.load(GOLDEN / f"{name}.npz")


def weight(name, shape, seed):
    """The golden set's rule: a weight follows from its published name, its shape and the seed."""
    r = np.random.default_rng([zlib.crc32(name.encode()), seed]).standard_normal(shape, np.float32)
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    if name.endswith("running_var"):
        return 1 + np.abs(0.1 * r)
    if len(shape) <= 1 and name.endswith("weight"):
        return 1 + 0.1 * r
    if len(shape) <= 1:
        return 0.1 * r
    return r / math.sqrt(np.prod(shape[1:]))


def published_weights(case):
    seed = case["seed"]
    return {k: torch.as_tensor(weight(k, s, seed)) for k, s in case["state_dict"].items()}


def modalities_of(case):
    """The config of each modality, as this project writes it."""
    kwargs, davenet = case["kwargs"], case["davenet"]
    frames = np.load(GOLDEN / case["inputs"])["audio"].shape[-1]
    version = 1 if len(davenet["layers"]) == 4 else 2
    encoder = {"name": "davenet", "num_frames": frames, "version": version}
    encoder["widths"] = davenet["widths"]
    if "audio_max_num_STFT_frames" in kwargs:
        encoder["max_tokens"] = kwargs["audio_max_num_STFT_frames"] // (16 if version == 1 else 64)
        strategy = kwargs.get("strategy_audio_pooling", "clip")
        encoder["long_clips"] = {"clip": "cut"}.get(strategy, strategy)
    modalities = {
        "text": {"dim": kwargs["text_embed_dim"], "max_tokens": 20},
        "video": {"dim": kwargs["video_embed_dim"], "max_tokens": 12},
        "audio": {"encoder": encoder, "max_tokens": 4},
    }
    if case["model"].endswith("TV_Only"):
        del modalities["audio"]
    return modalities


def build_model(case, combinations, **changes):
    kwargs, fusion = case["kwargs"], case["fusion"]
    model = EAO(
        modalities_of(case),
        combinations,
        token_dim=fusion["embed_dim"],
        embedding_dim=kwargs["projection_dim"],
        num_blocks=fusion["depth"],
        num_heads=fusion["num_heads"],
        mlp_ratio=fusion["mlp_ratio"],
        projection={"minimal": "linear"}.get(kwargs.get("projection"), "gated"),
        shared_head=not kwargs.get("individual_projections", True),
        cls_token=fusion["use_cls_token"],
        positional=kwargs.get("use_positional_emb", False),
        transformer_per_modality=case["model"] == "TransformerPerModalityModel",
        **changes,
    )
    further = {  # of what no published model has
        name: torch.as_tensor(weight(name, tensor.shape, case["seed"]))
        for name, tensor in model.state_dict().items()
        if "final_norm" in name
    }
    model.load_state_dict(convert_weights(published_weights(case), model.modalities) | further)
    return model


def combinations_of(expected, mode):
    """What the published model put out in this mode; some embed pairs in evaluation only."""
    known = ["t", "v", "a", "tv", "ta", "va"]
    return [c for c in known if f"{mode}.{published_embedding(c)}" in expected]


def build_loss(case, model):
    terms = {}
    for name, value in case["loss"].items():
        if name.endswith("_weight"):
            pair = name.removesuffix("_weight")
            left, right = pair.split("_") if "_" in pair else pair
            if left in model.combinations and right in model.combinations:
                terms[f"{left}|{right}"] = value
    kind = {"MMS": "mms"}.get(case["loss"].get("contrastive_loss"), "nce")
    return CombinatorialLoss(model.modalities, terms, contrastive=kind)


def read_inputs(case, modalities):
    arrays = {k: torch.from_numpy(v) for k, v in np.load(GOLDEN / case["inputs"]).items()}
    inputs = {}
    for name in modalities:
        values = arrays[name].mT if name == "audio" else arrays[name]
        lengths = arrays[f"{name}_mask"].sum(dim=1).long()
        inputs[name] = Tokens.unpad(values.contiguous(), lengths)
    return inputs


def published_embedding(combination):
    return f"{NAMES[combination]}_embed" if combination in NAMES else f"{combination}_embed"


def our_name(case, name):
    """Where the gradient of a published weight is found, None if nothing ever used it."""
    if case["model"] == "TransformerPerModalityModel" and name.startswith("fusion."):
        name = name.replace("fusion.", "fusion_text.")
    return convert_name(name)
