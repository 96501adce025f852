"""Tasks, by the names that configs use (``task:``)."""

from collections.abc import Mapping
from typing import Any

from fusion.config import ConfigError
from fusion.data.labelled.raw_video import KEY as RAW
from fusion.tasks.classification.task import Classification
from fusion.tasks.localisation.task import Localisation, check_without_frames
from fusion.tasks.localisation.whole_films import WholeFilms
from fusion.tasks.question_answering.task import QuestionAnswering
from fusion.tasks.question_answering.zero_shot import ZeroShotAnswers
from fusion.tasks.retrieval.result import complete_result
from fusion.tasks.retrieval.task import Retrieval
from fusion.tasks.task import SPLITS, Evaluation, Task

TASKS: dict[str, Any] = {
    "retrieval": Retrieval,
    "question_answering": QuestionAnswering,
    "classification": Classification,
    "localisation": Localisation,
    "whole_films": WholeFilms,
    "zero_shot_answering": ZeroShotAnswers,
}

__all__ = ["SPLITS", "TASKS", "Classification", "Evaluation", "Localisation", "QuestionAnswering"]
__all__ += ["Retrieval", "Task", "WholeFilms", "ZeroShotAnswers", "complete_result"]
__all__ += ["make_task", "tested_as"]


def tested_as(config: Mapping[str, Any], other: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the key of a config that says as what a model is tested: the task of another config.

    Args:
        config: that the model was trained with.
        other: what it is tested on.
        where: names that for the message.

    Raises:
        ConfigError: that is another task than the one of the training, and none that tests it; or
            the model takes frames, which the task cannot read.
    """
    trained, tested = config["task"], other["task"]
    if tested != trained and trained not in getattr(TASKS.get(tested), "tests", ()):
        raise ConfigError(
            f"{where} is a test of {tested}, but the model was trained for {trained}; name a run"
            f" that was trained for what {tested} tests, or other data"
        )
    if tested != trained:
        check_without_frames(tested, config["data"])
    return {"task": tested}


def make_task(config: Mapping[str, Any]) -> Task:
    """Check a config and make the task that it names.

    Raises:
        ConfigError: the task is unknown, or the config cannot be used.
    """
    name = config["task"]
    if name not in TASKS:
        raise ConfigError(f"task: unknown {name!r}; choose from {', '.join(TASKS)}")
    if config["data"].get(RAW) is not None and not getattr(TASKS[name], "reads_frames", False):
        readers = [n for n, made in TASKS.items() if getattr(made, "reads_frames", False)]
        raise ConfigError(
            f"data.{RAW} is of task {', '.join(readers)}; leave it out for task {name}"
        )
    task: Task = TASKS[name](config)
    return task
