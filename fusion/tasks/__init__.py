"""Tasks, by the names that configs use (``task:``)."""

from collections.abc import Mapping
from typing import Any

from fusion.config import ConfigError
from fusion.tasks.answering import QuestionAnswering
from fusion.tasks.classification import Classification
from fusion.tasks.retrieval import Retrieval
from fusion.tasks.retrieval_result import complete_result
from fusion.tasks.task import SPLITS, Evaluation, Task

TASKS: dict[str, Any] = {
    "retrieval": Retrieval,
    "question_answering": QuestionAnswering,
    "classification": Classification,
}

__all__ = [
    "SPLITS",
    "TASKS",
    "Classification",
    "Evaluation",
    "QuestionAnswering",
    "Retrieval",
    "Task",
]
__all__ += ["check_same_task", "complete_result", "make_task"]


def check_same_task(config: Mapping[str, Any], other: Mapping[str, Any], where: str) -> None:
    """Raise a ConfigError if the data of another config are about another task."""
    if other["task"] != config["task"]:
        raise ConfigError(
            f"{where} is about {other['task']}, but the model was trained for {config['task']}"
        )


def make_task(config: Mapping[str, Any]) -> Task:
    """Check a config and make the task that it names.

    Raises:
        ConfigError: the task is unknown, or the config cannot be used.
    """
    name = config["task"]
    if name not in TASKS:
        raise ConfigError(f"task: unknown {name!r}; choose from {', '.join(TASKS)}")
    task: Task = TASKS[name](config)
    return task
