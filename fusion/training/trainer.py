"""The training loop: any model, any loss, any data, one process or many.

A run is a function of its config: the order of the clips follows from (seed, epoch), all other
random numbers from (seed, epoch, clip). So the position in the run, two numbers, is all the random
state there is, and a run that was killed goes on from its last checkpoint as if nothing had
happened. How many processes there are, and how many clips are in memory at a time, changes nothing
but rounding.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import signal
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import Dataset

from fusion.checkpoint import load_weights, read_state
from fusion.distributed import broadcast_
from fusion.models.batchnorm import batch_granularity
from fusion.tokens import Batch
from fusion.training.guard import NonFiniteGuard
from fusion.training.launch import any_rank
from fusion.training.log import RunLog
from fusion.training.memory import ChunkSize
from fusion.training.optim import allocate_state, make_optimizer, make_schedule
from fusion.training.run_folder import RunFolder, write_checkpoint
from fusion.training.sampler import EpochBatchSampler, clip_seeds, make_loader, mix
from fusion.training.settings import Settings
from fusion.training.step import ExactStep
from fusion.training.stop import Stopped, StopRequest

STATE = "trainer.pt"


@dataclasses.dataclass
class Position:
    """Where a run is: complete epochs, and batches of the one that is under way."""

    epoch: int = 0
    batch: int = 0


class Trainer:
    """Train a model.

    Args:
        model: maps the inputs of a batch to named (B, …) outputs.
        loss: maps the outputs and the presence of each modality to a scalar and its named terms. If
            it compares clips, it asks the other processes for theirs, and its gradients are times
            their number, see :mod:`fusion.distributed`. If its attribute ``compares_clips`` is
            False, it is a mean over single clips, and chunks are embedded once instead of twice.
            What lasts from step to step is up to its methods ``commit``, which is called when a
            step is taken, ``undo``, when it is not, ``state_dict`` and ``load_state_dict``.
        train_set: items that ``collate`` makes batches of. If it has a method ``draw_anew(seed)``,
            that is called before each epoch, and ``end_epoch()`` after each. Its attribute
            ``group`` says how many neighbours keep together in a batch.
        collate: see ``torch.utils.data.DataLoader``.
        settings: how to train.
        seed: of the order of the clips and of every other random number.
        accelerator: the processes of the run.
        folder: where checkpoints and metrics go.
        write_model: writes a model into an empty folder.
        evaluate: gives named results of a model; called after each epoch, on every process. If it
            gives none, the last epoch is taken for the best.
        arguments: gives further arguments of the model in training for some clips, such as which
            outputs the loss reads, or their ``seeds``.

    Raises:
        ValueError: a setting does not fit the data or the model, see :class:`Settings`.
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
        arguments: Callable[[Batch], Mapping[str, Any]] = lambda clips: {},
    ) -> None:
        self.loss, self.settings, self.seed, self.train_set = loss, settings, seed, train_set
        self.accelerator, self.folder = accelerator, folder
        self.write_model, self.evaluate, self.arguments = write_model, evaluate, arguments
        ranks = accelerator.num_processes
        self.batches = EpochBatchSampler(
            len(train_set),  # type: ignore[arg-type]
            settings.batch_size,
            seed,
            accelerator.process_index,
            ranks,
            getattr(train_set, "group", 1),
        )
        self.loader = make_loader(
            train_set, collate, self.batches, settings.num_workers, accelerator.device
        )
        self.steps = settings.epochs * len(self.batches)
        self.chunk = ChunkSize(
            settings.batch_size // ranks, batch_granularity(model), settings.chunk_size
        )
        self.chunks = [self.chunk.size] * ranks
        self.found_chunk = settings.chunk_size is not None
        # Not spread by DDP: nothing may wait for other ranks within a chunk, see ExactStep.
        self.model = accelerator.prepare_model(model, evaluation_mode=True)
        broadcast_([*model.parameters(), *model.buffers()])
        self._prepare_steps()
        self.position, self.best = Position(), -math.inf
        self.stop_request = StopRequest()

    def _prepare_steps(self) -> None:
        settings = self.settings
        optimizer = make_optimizer(
            settings.optimizer,
            self.model.parameters(),
            settings.learning_rate,
            settings.weight_decay,
        )
        allocate_state(optimizer)
        self.schedule = make_schedule(
            settings.schedule, optimizer, settings.warmup_steps, self.steps, settings.epochs
        )
        self.optimizer = self.accelerator.prepare_optimizer(optimizer)
        self.guard = NonFiniteGuard(self.accelerator, settings.max_grad_norm)
        self.step = ExactStep(
            self.accelerator,
            self.model,
            self._embed,
            self.loss,
            self.optimizer,
            self.guard,
            self.chunk,
            self._report_chunks,
        )

    @property
    def steps_done(self) -> int:
        """Steps from the beginning of the run to where it is."""
        return self.position.epoch * len(self.batches) + self.position.batch

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
            self.steps_done,
            self.position.epoch,
        )
        with self.stop_request, contextlib.closing(self.log):
            while self.position.epoch < self.settings.epochs:
                self._train_epoch()
                self._end_epoch()

    def resume(self) -> None:
        """Go on from the last checkpoint."""
        load_weights(self.unwrapped, self.folder.last)
        state = read_state(self.folder.last / STATE)
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        if self.accelerator.scaler is not None and state["scaler"] is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        if hasattr(self.loss, "load_state_dict"):
            self.loss.load_state_dict(state["loss"])
        self.position, self.best = Position(**state["position"]), float(state["best"])
        if state["chunk_size"] == self.settings.chunk_size:  # otherwise the user knows better
            self.chunk.limit(min(state["chunks"]))
            self.chunks = [self.chunk.size] * self.accelerator.num_processes
            self.found_chunk = True

    def _train_epoch(self) -> None:
        self.model.train()
        for batch in self._rest_of_epoch():
            if not self.found_chunk:
                self.step.probe(batch)
                self.found_chunk = True
            value, terms = self.step(batch)
            del batch
            self.schedule.step()
            self.position.batch += 1
            self.log.step(self.settings.batch_size)
            looks = self.steps_done % self.settings.log_every == 0
            if looks:  # the only place where the CPU waits for the device
                self._check_gradients()
                self._log_step(value, terms)
            alone = self.accelerator.num_processes == 1
            told = self.stop_request.signal
            stopped = (alone or looks) and any_rank(told != 0, self.accelerator.device)
            every = self.settings.save_every
            if stopped or (every and self.steps_done % every == 0):
                self._save()
            if stopped:
                raise Stopped(told or signal.SIGTERM)

    def _rest_of_epoch(self) -> Iterator[Batch]:
        self.batches.epoch, self.batches.first = self.position.epoch, self.position.batch
        if hasattr(self.train_set, "draw_anew"):
            self.train_set.draw_anew(mix(self.seed, self.position.epoch))
        for batch in self.loader:
            seeds = clip_seeds(batch.ids, self.seed, self.position.epoch)
            yield dataclasses.replace(batch, seeds=seeds)
            del batch  # or it would be there while the next one is read

    def _embed(self, clips: Batch) -> Mapping[str, Tensor]:
        # For what a model draws by torch's own means; only the clips' own seeds survive a new cut.
        seed = mix(self.seed, self.position.epoch, zlib.crc32(clips.ids[0].encode()))
        torch.default_generator.manual_seed(seed)
        if self.accelerator.device.type == "cuda":
            torch.cuda.manual_seed(seed)
        # Clip by clip what is needed: a batch of any size stays in the memory of the CPU.
        clips = clips.to(self.accelerator.device, non_blocking=True)
        return self.model(clips.inputs, **self.arguments(clips))

    def _report_chunks(self, sizes: list[int]) -> None:
        self.chunks = sizes
        if min(sizes) == self.chunk.share:
            return
        at_a_time = ", ".join(map(str, sizes if len(set(sizes)) > 1 else sizes[:1]))
        self.log.say(
            f"from step {self.steps_done + 1} on {at_a_time} of {self.chunk.share} clips at a time,"
            f" as memory allows; the batch is {self.settings.batch_size} as before"
        )
        self.log.chunks(self.position.epoch + 1, self.steps_done, sizes)

    def _check_gradients(self) -> None:
        if message := self.guard.look(self.steps_done):
            self.log.say(message)

    def _log_step(self, value: Tensor, terms: Mapping[str, Tensor]) -> None:
        values = {"loss": value.item()}
        parts = {f"loss/{term}": part.item() for term, part in terms.items()}
        values |= {name: part for name, part in parts.items() if not math.isnan(part)}
        values["learning_rate"] = float(self.schedule.get_last_lr()[0])
        self.log.train(self.position.epoch + 1, self.steps_done, values)

    def _end_epoch(self) -> None:
        self._check_gradients()
        if hasattr(self.train_set, "end_epoch"):
            self.train_set.end_epoch()
        self.model.eval()
        results = self.evaluate(self.unwrapped)
        epoch = self.position.epoch + 1
        self.log.validation(epoch, self.steps_done, results)
        name = self.settings.best or next(iter(results), "")
        if name and name not in results:
            raise ValueError(
                f"trainer.best: the evaluation has no {name!r}; choose from {', '.join(results)}"
            )
        score = results[name] if name else float(epoch)  # without results the newest is the best
        self.log.say(f"epoch {epoch}: {name} {score:.1f}" if name else f"epoch {epoch}")
        self.position = Position(epoch, 0)
        if score > self.best:
            self.best = score
            self._write(self.folder.best, lambda folder: self.write_model(folder, self.unwrapped))
        self._save()

    def _save(self) -> None:
        self._write(self.folder.last, self._write_last)

    def _write_last(self, folder: Path) -> None:
        self.write_model(folder, self.unwrapped)
        scaler = self.accelerator.scaler
        state = {
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": scaler.state_dict() if scaler is not None else None,
            "loss": self.loss.state_dict() if hasattr(self.loss, "state_dict") else None,
            "position": dataclasses.asdict(self.position),
            "best": self.best,
            "chunks": self.chunks,
            "chunk_size": self.settings.chunk_size,
        }
        torch.save(state, folder / STATE)

    def _write(self, path: Path, write: Callable[[Path], None]) -> None:
        if self.accelerator.is_main_process:
            write_checkpoint(path, write)
        self.accelerator.wait_for_everyone()  # the others may read it, or end the run
