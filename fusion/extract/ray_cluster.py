"""Compute something for many films on a Ray cluster, or in several processes of this machine.

Ray Data starts the workers, gives each a film when it is free, replaces workers that end, and gives
their films to others. The results come in the order of the films: while one film takes long, those
of later films wait in Ray's object store. All that is written is written by the caller, in this
process, so what is written does not depend on which worker computed what.

Only Ray's public interface is used. Ray and torch are imported where they are needed: the imports
take seconds, and the ledger's process needs no torch.
"""

from __future__ import annotations

import os
import pickle
import socket
import traceback
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from fusion.extract.ray_start import WORKER, connected, debugging
from fusion.files import num_cores

TRIES = 3  # workers that a film may end before it is given up


class Cluster(NamedTuple):
    """Where films are computed."""

    address: str | None = None  # of Ray's head; None: RAY_ADDRESS, else processes of this machine
    workers: int | None = None  # films at a time; None: as many as there is room for


class Answer(NamedTuple):
    """What a worker computed for a film, or why it could not; one line."""

    value: Any = None
    problem: str | None = None


class OfFilm(Protocol):
    """A task that is about a film, and can be pickled."""

    @property
    def path(self) -> str | Path:
        """Where the film is, on all machines."""


def compute_films(
    cluster: Cluster,
    tasks: Sequence[OfFilm],
    make: Callable[..., Callable[[Any], Any]],
    arguments: Sequence[Any],
) -> Generator[Answer, None, None]:
    """Compute something for each film; answers come in the order of the tasks.

    Args:
        cluster: where to do it.
        tasks: what is to be done.
        make: called once in each worker, with ``arguments``; what it returns is called with tasks,
            and returns what can be pickled.
        arguments: can be pickled.

    Raises:
        ValueError: Ray cannot be used as asked; one line.
        Exception: any that is raised in a worker; a film that cannot be computed is no exception.
    """
    if not tasks:
        return
    with connected(cluster.address, _local_workers(cluster.workers)) as ray:
        ledger = _ledger(ray)
        place = make, tuple(arguments), _Threads.here(), ledger
        rows = [{"number": n, "film": pickle.dumps(task)} for n, task in enumerate(tasks)]
        films = ray.data.from_items(rows, override_num_blocks=len(rows))  # each is tried by itself
        _settle(films.context)
        resources = _resources(ray, cluster, len(tasks))
        computed = films.map(_Worker, fn_constructor_args=place, **resources)
        for number, row in enumerate(computed.iter_rows()):
            assert row["number"] == number, "Ray keeps the order"
            answer = pickle.loads(row["answer"])
            if isinstance(answer, BaseException):
                raise answer
            yield answer


def _settle(context: Any) -> None:
    """Make Ray Data keep the order, wait for slow films, and show no bars: the caller has one."""
    context.execution_options.preserve_order = True
    context.execution_no_progress_timeout_s = -1  # a film may take hours
    context.max_consecutive_actor_init_deaths = 3  # such as a machine that goes away
    context.autoscaling_config.actor_pool_util_upscaling_threshold = 1.0  # all workers have a film
    context.enable_progress_bars = context.print_on_execution_start = debugging()


def _local_workers(asked: int | None) -> int:
    """Say how many workers a Ray of this machine has: one for each GPU, or share of the cores."""
    if asked is not None:
        return asked
    import torch

    return torch.cuda.device_count() or max(1, num_cores() // torch.get_num_threads())


def _resources(ray: Any, cluster: Cluster, num_films: int) -> dict[str, Any]:
    """Say how many workers there are, and what each of them takes of a machine."""
    there = ray.cluster_resources()
    gpus, local = int(there.get("GPU", 0)), WORKER in there
    asked = int(there[WORKER]) if local else cluster.workers
    if gpus:
        # A worker has a part of one GPU: of two GPUs and three workers each has a half
        share = {"num_gpus": 1.0 / -(-asked // gpus) if asked else 1.0}
    else:
        share = {"num_cpus": 1 if local else _Threads.here().number}
    pool: dict[str, Any] = {"min_size": 1, "max_size": num_films}  # what Ray's autoscaler gives
    if asked:
        pool = {"size": min(asked, num_films)}
    # One film waits in no worker: it would be lost with it
    pool["max_tasks_in_flight_per_actor"] = 1
    return {"compute": ray.data.ActorPoolStrategy(**pool)} | share


class _Threads(NamedTuple):
    """How many threads compute: the last bits of a sum on a CPU depend on it."""

    number: int
    variable: str | None

    @classmethod
    def here(cls) -> _Threads:
        import torch

        return cls(torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS"))

    def use(self) -> None:
        """Compute with as many threads in this process; Ray has set others."""
        import torch

        torch.set_num_threads(self.number)
        os.environ.pop("OMP_NUM_THREADS", None)
        if self.variable is not None:
            os.environ["OMP_NUM_THREADS"] = self.variable


class _Ledger:
    """Counts how often each film was begun, and so how many workers it has ended."""

    def __init__(self) -> None:
        self._begun = Counter[int]()

    def begin(self, number: int) -> int:
        self._begun[number] += 1
        return self._begun[number]

    def end(self, number: int) -> None:
        del self._begun[number]


def _ledger(ray: Any) -> Any:
    """Start the ledger on this machine, which outlives all others or ends the work."""
    here = ray.get_runtime_context().get_node_id()
    near = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(here, soft=True)
    return ray.remote(num_cpus=0)(_Ledger).options(scheduling_strategy=near).remote()


class _Worker:
    """What Ray calls in each worker with one film after the other."""

    def __init__(
        self,
        make: Callable[..., Callable[[Any], Any]],
        arguments: tuple[Any, ...],
        threads: _Threads,
        ledger: Any,
    ) -> None:
        import ray

        threads.use()
        self._ray, self._ledger = ray, ledger
        self._broken: BaseException | None = None
        try:
            self._compute = make(*arguments)
        except Exception as error:  # told with the first film: Ray would say it in many lines
            self._broken = _portable(error)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        number = row["number"]
        begun = self._ray.get(self._ledger.begin.remote(number))
        if begun > TRIES:
            problem = (
                f"each of {TRIES} workers ended while it had this film (a crash, or out of memory);"
                " convert it to mp4, or scale it down"
            )
            answer: Answer | BaseException = Answer(problem=problem)
        else:
            answer = self._broken or self._answer(pickle.loads(row["film"]))
        self._ray.get(self._ledger.end.remote(number))
        return {"number": number, "answer": pickle.dumps(answer, pickle.HIGHEST_PROTOCOL)}

    def _answer(self, task: OfFilm) -> Answer | BaseException:
        if not os.path.exists(task.path):
            return Answer(
                problem=f"is not there on {socket.gethostname()}; all machines must have the films"
                " under the same path"
            )
        try:
            return Answer(self._compute(task))
        except Exception as error:
            return _portable(error)


def _portable(error: Exception) -> BaseException:
    """Make an error that can be sent to the process that gave the film."""
    error.add_note(f"in a worker on {socket.gethostname()}:\n{traceback.format_exc()}")
    error.__traceback__ = error.__cause__ = error.__context__ = None
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
