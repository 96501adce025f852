"""What the workers of Ray do in tests: tiny networks, and films that end their worker."""

import os
import signal

import torch

from fusion.extract import ray_films
from fusion.extract.networks import BACKBONES_2D, BACKBONES_3D
from tests.extract.tiny import tiny_2d, tiny_3d


def end_once(film):
    """End this process if there is a file of the film's name with ``.kill`` behind it."""
    mark = film.with_name(f"{film.name}.kill")
    if mark.exists():
        mark.unlink()
        os.kill(os.getpid(), signal.SIGKILL)


class TinyFilms(ray_films.Films):
    def __init__(self, *arguments):
        BACKBONES_2D["tiny"], BACKBONES_3D["tiny"] = tiny_2d, tiny_3d
        super().__init__(*arguments)

    def __call__(self, task):
        made = super().__call__(task)
        end_once(task.path)
        return made


class Shout:
    """Gives the name of a film in capitals, and the numbers of threads; or does what it says."""

    def __init__(self, mark):
        self.mark = mark
        if mark == "broken":
            raise ValueError("no weights here")

    def __call__(self, task):
        if task.name == "bad":
            raise KeyError("a bug")
        if task.name == "deadly":
            os.kill(os.getpid(), signal.SIGKILL)
        threads = torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS")
        return task.name.upper() + self.mark, *threads
