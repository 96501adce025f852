"""Convert a published model (EAO, AVLnet, MCN, TSM) or word vectors into files of this project."""

from __future__ import annotations

import argparse

from fusion.commands.arguments import positive

EXAMPLES = """examples:
  {prog} GoogleNews-vectors-negative300.bin --out words.safetensors
  {prog} latest_model.pth --out weights/eao --word-vectors words.safetensors
  {prog} TSM_kinetics_RGB_resnet50_shift8_blockres_avg_segment8_e50.pth --out weights/tsm
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "file",
        help="a .pth file of EAO, AVLnet, MCN or TSM (no code in it runs), or word vectors of"
        " word2vec or GloVe",
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        required=True,
        help="for a model: a folder, empty or new; for word vectors: FILE.safetensors",
    )
    parser.add_argument(
        "--num-heads",
        type=positive,
        metavar="N",
        help="number of attention heads (default: as in the file, else the width / 64)",
    )
    parser.add_argument(
        "--word-vectors", metavar="FILE", help="the word vectors that the model was trained with"
    )


def call(given: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Convert a model or word vectors, by the ending of the output, and print what was found."""
    from fusion.commands.errors import run
    from fusion.convert import convert_checkpoint, convert_word_vectors

    def convert() -> None:
        if given.out.endswith(".safetensors"):
            print(convert_word_vectors(given.file, given.out))
        else:
            print(convert_checkpoint(given.file, given.out, given.num_heads, given.word_vectors))

    run(convert)
