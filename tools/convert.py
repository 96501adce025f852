"""Convert a published model (EAO, AVLnet, MCN) or word vectors into files of this project."""

import argparse

from fusion.commands.arguments import Parser, positive
from fusion.commands.errors import run
from fusion.convert import convert_checkpoint, convert_word_vectors

EXAMPLES = """examples:
  python tools/convert.py GoogleNews-vectors-negative300.bin --out words.safetensors
  python tools/convert.py latest_model.pth --out weights/eao --word-vectors words.safetensors
  python tools/evaluate.py weights/eao --set configs/msrvtt/zero_shot.yaml data_root=FOLDER
"""


def convert(given: argparse.Namespace) -> None:
    """Convert a model or word vectors, by the ending of the output, and print what was found."""
    if given.out.endswith(".safetensors"):
        print(convert_word_vectors(given.file, given.out))
    else:
        print(convert_checkpoint(given.file, given.out, given.num_heads, given.word_vectors))


def main() -> None:
    """Read the command line and convert."""
    parser = Parser(description=__doc__, epilog=EXAMPLES)
    parser.add_argument(
        "file",
        help="a .pth file of EAO, AVLnet or MCN (no code in it runs), or word vectors of word2vec"
        " or GloVe",
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
    given = parser.parse_args()
    run(lambda: convert(given))


if __name__ == "__main__":
    main()
