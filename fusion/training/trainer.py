"""The training loop: any model, any loss, any data, one process or many.

A run is a function of its config: batches follow from (seed, epoch), all other random numbers from
(seed, step, rank). So the position in the run, two numbers, is all the random state there is, and a
run that was killed goes on from its last checkpoint as if nothing had happened.
"""

from __future__ import annotations

import dataclasses
import math
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from accelerate import Accelerator
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from fusion.checkpoint import load_weights, read_state
from fusion.files import replace_folder
from fusion.tokens import Batch
from fusion.training.folder import RunFolder
from fusion.training.gradcache import backward_in_chunks
from fusion.training.guard import GradientGuard
from fusion.training.launch import any_rank, average_over_ranks
from fusion.training.log import RunLog
from fusion.training.optim import make_optimizer, make_schedule
from fusion.training.order import EpochBatches, mix
from fusion.training.settings import Settings

STATE = "trainer.pt"


@dataclasses.dataclass
class Position:
    """Where a run is: complete epochs, batches of the one that is under way, steps in all."""

    epoch: int = 0
    batch: int = 0
    step: int = 0


class Stopped(Exception):
    """A signal ended the run after its state was saved; ``signal`` is its number."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}; go on with resume=true")
        self.signal = number


class Trainer:
    """Train a model.

    Args:
        model: maps the inputs of a batch to named (B, …) outputs.
        loss: maps the outputs and the presence of each modality to a scalar and its named terms. If
            it compares clips, it asks the other processes for theirs, and its gradients are times
            their number, see :mod:`fusion.losses.exchange`.
        train_set: items that ``collate`` makes batches of. If it has a method ``draw_anew(seed)``,
            that is called before each epoch.
        collate: see ``torch.utils.data.DataLoader``.
        settings: how to train.
        seed: of the order of the clips and of every other random number.
        accelerator: the processes of the run.
        folder: where checkpoints and metrics go.
        write_model: writes a model into an empty folder.
        evaluate: gives named results of a model; called after each epoch, on every process.
        arguments: further arguments of the model in training, such as which outputs the loss reads.

    Raises:
        ValueError: a setting does not fit the data, see :class:`Settings`.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[..., tuple[Tensor, dict[str, Tensor]]],
        train_set: Dataset[Any],
        collate: Callable[[Sequence[Any]], Batch],
        settings: Settings,
        seed: int,
        accelerator: Accelerator,
        folder: RunFolder,
        write_model: Callable[[Path, nn.Module], None],
        evaluate: Callable[[nn.Module], Mapping[str, float]],
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        self.loss, self.settings, self.seed, self.train_set = loss, settings, seed, train_set
        self.accelerator, self.folder = accelerator, folder
        self.write_model, self.evaluate = write_model, evaluate
        self.arguments = dict(arguments or {})
        self.batches = EpochBatches(
            len(train_set),  # type: ignore[arg-type]
            settings.batch_size,
            seed,
            accelerator.process_index,
            accelerator.num_processes,
        )
        self.loader = DataLoader(
            train_set,
            batch_sampler=self.batches,
            collate_fn=collate,
            num_workers=settings.num_workers,
            pin_memory=accelerator.device.type == "cuda",
            generator=torch.Generator(),  # its own, so that it takes no number from the global one
        )
        self.steps = settings.epochs * len(self.batches)
        optimizer = make_optimizer(
            settings.optimizer, model.parameters(), settings.learning_rate, settings.weight_decay
        )
        self.schedule = make_schedule(
            settings.schedule, optimizer, settings.warmup_steps, self.steps, settings.epochs
        )
        self.model, self.optimizer = accelerator.prepare(model, optimizer)
        self.guard = GradientGuard(accelerator, settings.max_grad_norm)
        self.position, self.best = Position(), -math.inf
        self._signal = 0

    @property
    def unwrapped(self) -> nn.Module:
        """The model itself, without what spreads it over processes."""
        return self.accelerator.unwrap_model(self.model)

    def fit(self) -> None:
        """Train to the end, from where the run is.

        Raises:
            Stopped: SIGTERM or SIGINT came; the state is saved.
            FloatingPointError: the gradient was not finite in too many steps.
        """
        self.log = RunLog(
            self.folder.metrics,
            self.accelerator,
            self.steps,
            self.position.step,
            self.position.epoch,
        )
        handlers = {s: signal.signal(s, self._note) for s in (signal.SIGTERM, signal.SIGINT)}
        try:
            while self.position.epoch < self.settings.epochs:
                self._train_epoch()
                self._end_epoch()
        finally:
            self.log.close()
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def resume(self) -> None:
        """Go on from the last checkpoint."""
        load_weights(self.unwrapped, self.folder.last)
        state = read_state(self.folder.last / STATE)
        self.optimizer.load_state_dict(state["optimizer"])
        for group in self.optimizer.param_groups:
            group["fused"] = True  # a checkpoint of an earlier version may say otherwise
        self.schedule.load_state_dict(state["schedule"])
        if self.accelerator.scaler is not None and state["scaler"] is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.position, self.best = Position(**state["position"]), float(state["best"])

    def _train_epoch(self) -> None:
        self.model.train()
        for batch in self._rest_of_epoch():
            value, terms = self._step(batch)
            self.position.batch += 1
            self.position.step += 1
            self.log.step(self.settings.batch_size)
            looks = self.position.step % self.settings.log_every == 0
            if looks:  # the only place where the CPU waits for the device
                self._check_gradients()
                self._log_step(value, terms)
            alone = self.accelerator.num_processes == 1
            stopped = (alone or looks) and any_rank(self._signal != 0, self.accelerator.device)
            every = self.settings.save_every
            if stopped or (every and self.position.step % every == 0):
                self._save()
            if stopped:
                raise Stopped(self._signal or signal.SIGTERM)

    def _rest_of_epoch(self) -> Iterator[Batch]:
        self.batches.epoch, self.batches.first = self.position.epoch, self.position.batch
        if hasattr(self.train_set, "draw_anew"):
            self.train_set.draw_anew(mix(self.seed, self.position.epoch))
        for batch in self.loader:
            yield batch.to(self.accelerator.device, non_blocking=True)

    def _step(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        size = self.settings.chunk_size or len(batch.ids)
        chunks = batch.chunks(size)
        rank, step = self.accelerator.process_index, self.position.step
        seeds = [mix(self.seed, step, rank, i) for i in range(len(chunks))]
        value, terms = backward_in_chunks(
            self.accelerator,
            self.model,
            lambda outputs: self.loss(outputs, batch.present),
            chunks,
            self.arguments,
            seeds,
        )
        self._update()
        self.optimizer.zero_grad()
        return value, terms

    def _update(self) -> None:
        self.guard.check(self.model.parameters(), self.optimizer.optimizer)
        self.optimizer.step()
        self.schedule.step()

    def _check_gradients(self) -> None:
        skipped, in_a_row, norm = self.guard.look()
        if skipped:
            self.log.say(
                f"{skipped} step{'s' if skipped > 1 else ''} up to step {self.position.step} left"
                f" out, as the gradient was not finite ({norm}; {in_a_row} in a row)"
            )
        if in_a_row >= self.guard.most:
            raise FloatingPointError(
                f"the gradient was not finite in {in_a_row} steps in a row, up to step"
                f" {self.position.step}; lower trainer.learning_rate"
                f" ({self.settings.learning_rate}) or set trainer.max_grad_norm"
            )

    def _log_step(self, value: Tensor, terms: Mapping[str, Tensor]) -> None:
        values = {"loss": value.item()}
        parts = {f"loss/{term}": part.item() for term, part in terms.items()}
        values |= {name: part for name, part in parts.items() if not math.isnan(part)}
        values["learning_rate"] = float(self.schedule.get_last_lr()[0])
        self.log.train(self.position.epoch + 1, self.position.step, values)

    def _end_epoch(self) -> None:
        self._check_gradients()
        average_over_ranks(list(self.unwrapped.buffers()))  # BatchNorm's running statistics
        self.model.eval()
        results = self.evaluate(self.unwrapped)
        epoch = self.position.epoch + 1
        self.log.validation(epoch, self.position.step, results)
        name = self.settings.best or next(iter(results))
        if name not in results:
            raise ValueError(
                f"trainer.best: the evaluation has no {name!r}; choose from {', '.join(results)}"
            )
        score = results[name]
        self.log.say(f"epoch {epoch}: {name} {score:.1f}")
        self.position = Position(epoch, 0, self.position.step)
        if score > self.best:
            self.best = score
            self._write(self.folder.best, lambda folder: self.write_model(folder, self.unwrapped))
        self._save()

    def _save(self) -> None:
        average_over_ranks(list(self.unwrapped.buffers()))
        self._write(self.folder.last, self._write_last)

    def _write_last(self, folder: Path) -> None:
        self.write_model(folder, self.unwrapped)
        scaler = self.accelerator.scaler
        state = {
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": scaler.state_dict() if scaler is not None else None,
            "position": dataclasses.asdict(self.position),
            "best": self.best,
        }
        torch.save(state, folder / STATE)

    def _write(self, path: Path, write: Callable[[Path], None]) -> None:
        if self.accelerator.is_main_process:
            try:
                with replace_folder(path) as folder:
                    write(folder)
            except (SafetensorError, RuntimeError, OSError) as error:  # a full disk has many names
                raise OSError(
                    f"{path} cannot be written ({error}); make room there and go on with"
                    " resume=true"
                ) from error
        self.accelerator.wait_for_everyone()  # the others may read it, or end the run

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._signal = number
