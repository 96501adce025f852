"""Render some of the films: ``python -m fusion.data.demo.worker FOLDER VERSION SIZE FIRST STEP``.

Not a process of a pool: a pool would fork the caller with its threads, or import its main program.
"""

from __future__ import annotations

import sys
from pathlib import Path

from fusion.data.demo.film import write_film
from fusion.data.demo.versions import plan_corpus


def main(folder: str, version: str, size: str, first: str, step: str) -> None:
    """Render every ``step``-th film from ``first`` on; ``size`` 0 is the whole corpus."""
    for film in plan_corpus(int(size) or None, int(version))[int(first) :: int(step)]:
        try:
            write_film(film, Path(folder))
        except OSError as error:
            print(f"error {error.errno}", flush=True)
            return
        print(film.path, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
