"""A process that indexes films, to be killed.

Its arguments are a model, an index and a folder of films. It prints ``ready`` when the model is
loaded, then the path of each film that is in the index.
"""

import contextlib
import sys

import fusion
from fusion.search.indexing import index_films
from fusion.search.storage import Storage


class Telling(Storage):
    """Tells of each film that is written."""

    def replace(self, film, clips, vectors):
        super().replace(film, clips, vectors)
        print(film.path, flush=True)


def main(place, folder, films):
    model = fusion.load(place)
    print("ready", flush=True)
    with contextlib.closing(Telling(folder, write=True)) as storage:
        index_films(storage, model, [films], quiet=True, model_path=place)
    print("done", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
