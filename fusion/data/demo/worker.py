"""One process that renders some of the films and prints the path of each when it is done.

    python -m fusion.data.demo.worker FOLDER SIZE FIRST STEP

A program of its own, not a process of a pool: a pool would fork the caller with all its threads,
or import the caller's main program again.
"""

from __future__ import annotations

import sys
from pathlib import Path

from fusion.data.demo.film import write_film
from fusion.data.demo.plan import plan_corpus


def main(folder: str, size: str, first: str, step: str) -> None:
    """Render every ``step``-th film into ``folder``, from film ``first`` on.

    Args:
        folder: where the corpus is being built.
        size: films per split; 0 for the whole corpus.
        first: number of the first film.
        step: number of processes.
    """
    for film in plan_corpus(int(size) or None)[int(first) :: int(step)]:
        try:
            write_film(film, Path(folder))
        except OSError as error:
            print(f"error {error.errno}", flush=True)
            return
        print(film.path, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
