"""Tiny random models of picture and text, saved as transformers saves them."""

import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

SIDE = 32  # pixels of the pictures that they see
WORDS = ["a", "red", "blue", "star", "circle", "spins", "dog", "barks", "wall"]
_TOWER = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}
_TOWER |= {"num_hidden_layers": 1}
_TEXT = _TOWER | {"vocab_size": 50, "max_position_embeddings": 12}
_TEXT |= {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
_SIGHT = _TOWER | {"image_size": SIDE, "patch_size": 8}
_SQUARE = {"height": SIDE, "width": SIDE}


def write_model(folder, name="clip", seed=0):
    """Write a model of type ``clip`` or ``siglip`` with all its parts; return ``clip:FOLDER``."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if name == "clip":
            config = transformers.CLIPConfig(
                text_config=_TEXT, vision_config=_SIGHT, projection_dim=12
            )
            pictures = transformers.CLIPImageProcessorPil(
                size={"shortest_edge": SIDE}, crop_size=_SQUARE
            )
        else:
            config = transformers.SiglipConfig(text_config=_TEXT, vision_config=_SIGHT)
            pictures = transformers.SiglipImageProcessorPil(size=_SQUARE)
        transformers.AutoModel.from_config(config).save_pretrained(folder)
    pictures.save_pretrained(folder)
    _tokenizer(
        ["input_ids"] if name == "siglip" else ["input_ids", "attention_mask"]
    ).save_pretrained(folder)
    return f"clip:{folder}"


def _tokenizer(inputs):
    known = {word: place for place, word in enumerate(["<s>", "</s>", "<pad>", "<unk>", *WORDS])}
    made = Tokenizer(models.WordLevel(known, unk_token="<unk>"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made,
        **{"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"},
        model_input_names=inputs,
        model_max_length=12,
    )
