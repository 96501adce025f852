"""Convert published files: a model of EAO, AVLnet or MCN, or word vectors."""

import argparse

from fusion.commands.errors import run
from fusion.convert import convert_checkpoint, convert_word_vectors

EXAMPLES = """examples:
  python tools/convert.py GoogleNews-vectors-negative300.bin --out words.safetensors
  python tools/convert.py latest_model.pth --out weights/eao --word-vectors words.safetensors
  python tools/evaluate.py weights/eao --set configs/msrvtt/zero_shot.yaml data_root=FOLDER
"""


def convert(given: argparse.Namespace) -> None:
    """Convert a model or word vectors, depending on --out, and print a summary."""
    if given.out.endswith(".safetensors"):
        print(convert_word_vectors(given.file, given.out))
    else:
        print(convert_checkpoint(given.file, given.out, given.num_heads, given.word_vectors))


def main() -> None:
    """Read the command line and convert."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "file",
        help=".pth file of EAO, AVLnet or MCN (no code in it is run), or word vectors in the format"
        " of word2vec",
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        required=True,
        help="folder for the model, new or empty; FILE.safetensors for word vectors",
    )
    parser.add_argument(
        "--num-heads",
        type=int,
        metavar="N",
        help="attention heads (default: as in the file, otherwise heads of width 64)",
    )
    parser.add_argument(
        "--word-vectors", metavar="FILE", help="word vectors with which the model was trained"
    )
    given = parser.parse_args()
    run(lambda: convert(given))


if __name__ == "__main__":
    main()
