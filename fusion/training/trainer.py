"""The training loop: any model, any loss, any data, on one process or many.

A run is a function of its config. The order of the clips is a function of (seed, epoch), all other
random numbers are functions of (seed, epoch, clip). So the position in the run is the whole random
state: a run that was killed continues from its last checkpoint with the same losses. The number of
processes and the chunk size change only rounding.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from fusion import distributed
from fusion.arithmetic import choose_arithmetic
from fusion.batches import start_reading
from fusion.checkpoint import save_weights
from fusion.interfaces import Loss, Result, TrainingSet
from fusion.models.batchnorm import batch_granularity
from fusion.tokens import Batch
from fusion.training.best import BestEpoch
from fusion.training.full_precision import InFullPrecision
from fusion.training.gradcache import check_outputs
from fusion.training.launch import Stopped
from fusion.training.log import RunLog, Stopwatch
from fusion.training.memory import ChunkSize
from fusion.training.optim import NonFiniteGuard, allocate_state
from fusion.training.run_folder import RunFolder
from fusion.training.safety.checkpoints import BEST, LAST, STATE, check_finite, write_checkpoint
from fusion.training.safety.guard import SkippedClips, WeightGuard, name_clips
from fusion.training.safety.state import (
    check_best,
    facts_of,
    new_run_id,
    pack_state,
    restore_state,
)
from fusion.training.safety.wishes import Wishes
from fusion.training.sampler import (
    EpochBatchSampler,
    check_division,
    clip_seeds,
    make_loader,
    mix,
)
from fusion.training.settings import Settings
from fusion.training.step import ExactStep


class Trainer:
    """Train a model; :meth:`fit` begins, or goes on after :meth:`resume`.

    Args:
        model: maps the inputs of a batch to named (B, …) outputs.
        loss: see :class:`fusion.interfaces.Loss`.
        train_set: see :class:`fusion.interfaces.TrainingSet`.
        collate: makes a batch of items, see ``torch.utils.data.DataLoader``.
        settings: how to train.
        seed: of the order of the clips and of every other random number.
        accelerator: the processes of the run.
        folder: where checkpoints and metrics go; None: nothing is written.
        write_model: writes a model into an empty folder; its weights alone by default.
        evaluate: returns named results of a model, on every process, after each epoch. If it
            returns none, or is not given, the last epoch counts as the best.
        arguments: returns further arguments of the model for some clips, such as their ``seeds``.

    Raises:
        ValueError: a setting does not fit the data or the model, see :class:`Settings`.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        train_set: TrainingSet,
        collate: Callable[[Sequence[Any]], Batch],
        settings: Settings,
        seed: int,
        accelerator: Accelerator,
        folder: RunFolder | None = None,
        write_model: Callable[[Path, nn.Module], None] = save_weights,
        evaluate: Callable[[nn.Module], Mapping[str, float]] = lambda model: {},
        arguments: Callable[[Batch], Mapping[str, Any]] = lambda clips: {},
    ) -> None:
        self.loss, self.settings, self.seed, self.train_set = loss, settings, seed, train_set
        self.accelerator, self.folder = accelerator, folder
        self.arithmetic = choose_arithmetic(accelerator.device.type, accelerator.mixed_precision)
        self.write_model, self.evaluate, self.arguments = write_model, evaluate, arguments
        rank, world_size = accelerator.process_index, accelerator.num_processes
        cut = batch_granularity(model.train())
        check_division(settings.batch_size, world_size, cut)
        self.batches = EpochBatchSampler(
            len(train_set), settings.batch_size, seed, rank, world_size, train_set.group
        )
        self.loader = make_loader(
            train_set, self.batches, collate, settings.num_workers, accelerator
        )
        self.steps = settings.epochs * len(self.batches)
        share = settings.batch_size // world_size
        self.chunk = ChunkSize(share, cut, settings.chunk_size)
        self.chunks = [self.chunk.size] * world_size
        self.found_chunk = settings.chunk_size is not None
        # No DDP wrapper: it would communicate within a chunk, see ExactStep.
        self.model = accelerator.prepare_model(model, evaluation_mode=True)
        distributed.broadcast_([*model.parameters(), *model.buffers()])
        distributed.warm_up(accelerator.device)
        self._prepare_steps()
        self.epoch = self.batch = 0  # complete epochs, and batches of the current one
        self.best = BestEpoch(settings.best, settings.patience)
        self.absent: set[str] | None = None  # terms that no logged step could compute
        self.run_id = new_run_id()
        self.saved: int | None = None  # the step of the last checkpoint
        self.wishes = Wishes(self.step.agreement, settings.save_every_minutes)
        self.reading = Stopwatch()  # how long steps waited for their clips

    def _prepare_steps(self) -> None:
        settings = self.settings
        optimizer = settings.make_optimizer(self.unwrapped)
        allocate_state(optimizer)
        self.schedule = settings.make_schedule(optimizer, len(self.batches))
        self.optimizer = self.accelerator.prepare_optimizer(optimizer)
        self.guard = NonFiniteGuard(self.accelerator, settings.max_grad_norm)
        self.weights, self.skipped = WeightGuard(self.unwrapped.parameters()), SkippedClips()
        self.step = ExactStep(
            self.accelerator,
            self.model,
            self._embed,
            InFullPrecision(self.loss),
            self.optimizer,
            self.guard,
            self.chunk,
            self._report_chunks,
            distributed.GradientBuckets(
                [p for p in self.model.parameters() if p.requires_grad],
                settings.overlap,
                torch.bfloat16 if settings.bf16_gradients else None,
            ),
            settings.timeout_minutes,
        )

    @property
    def steps_done(self) -> int:
        """Number of steps since the beginning of the run."""
        return self.epoch * len(self.batches) + self.batch

    @property
    def unwrapped(self) -> nn.Module:
        """The model itself, without Accelerate's wrappers."""
        return self.accelerator.unwrap_model(self.model)

    @property
    def why_ended(self) -> str | None:
        """Why training ended before the last epoch; None: it did not."""
        if not self.best.is_over or self.epoch == self.settings.epochs:
            return None
        return self.best.explain(self.epoch, self.settings.epochs)

    def fit(self) -> None:
        """Train from the current position to the end.

        Raises:
            Stopped: SIGTERM, SIGINT or SIGHUP was received; the state is saved in the folder, if
                there is one.
            FloatingPointError: the gradient was not finite in too many steps, and the state is
                saved; or the weights have exploded, and it is not.
        """
        metrics = self.folder.metrics if self.folder else None
        self.log = RunLog(metrics, self.accelerator, self.steps, self.steps_done, self.epoch)
        stops = self.wishes.stop if self.folder else contextlib.nullcontext()
        self.weights.begin()
        self.wishes.begin()
        self.log.say(f"arithmetic {self.arithmetic}")
        with stops, contextlib.closing(self.log):
            while self.epoch < self.settings.epochs and not self.best.is_over:
                self._train_epoch()
                self._end_epoch()
                if received := self.wishes.ask_all():
                    raise Stopped(received)

    def resume(self) -> None:
        """Continue from the last checkpoint.

        Raises:
            ConfigError: it is of another run, or of other data.
            CheckpointError: it, or the best one of a run that is at its end, cannot be used.
        """
        assert self.folder
        restore_state(self, self.folder.last)
        check_best(self, self.folder)
        self.saved = self.steps_done

    def _train_epoch(self) -> None:
        self.model.train()
        for batch in self.rest_of_epoch():
            self.wishes.is_last = self.batch + 1 == len(self.batches)
            value, terms = self.take_step(batch)
            self.skipped.note(self.steps_done + 1, batch.ids, self.guard.bad)
            del batch
            self.schedule.step()
            self.batch += 1
            communication = distributed.times.take(distributed.COMMUNICATION)
            waiting = distributed.times.take(distributed.WAITING)
            self.log.step(self.settings.batch_size, self.reading.take(), communication, waiting)
            is_last = self.batch == len(self.batches)
            if is_last or self.steps_done % self.settings.log_every == 0:
                self._look()  # reading values back from the device forces a synchronisation
                self._log_step(value, terms)
            every = self.settings.save_every
            if self.wishes.received or self.wishes.save or (every and not self.steps_done % every):
                self._save()
            if self.wishes.received:
                raise Stopped(self.wishes.received)

    def _look(self) -> None:
        """Say which steps were left out; end the run if there were too many, or if it explodes."""
        skipped = self.skipped.take() if self.accelerator.scaler is None else {}
        try:
            said = self.guard.look(self.steps_done)
        except FloatingPointError as error:
            self._save()  # the weights are those before these steps
            raise FloatingPointError(f"{error}{name_clips(skipped)}") from None
        self.log.say(said and f"{said}{name_clips(skipped)}")
        self.log.skipped(self.epoch + 1, skipped)
        self.weights.look(self.steps_done, self.saved)

    def take_step(self, batch: Batch) -> Result:
        """Take a step on this process' share of a batch, the first one in chunks that fit."""
        if not self.found_chunk:
            self.step.probe(batch)
            self.found_chunk = True
        return self.step(batch)

    def rest_of_epoch(self) -> Iterator[Batch]:
        """Read the batches that are left of the current epoch, with the seeds of their clips."""
        self.batches.epoch, self.batches.first = self.epoch, self.batch
        self.train_set.begin_epoch(self.epoch)
        self.train_set.set_epoch(mix(self.seed, self.epoch))
        batches = start_reading(self.loader)
        while True:
            with self.reading:
                batch = next(batches, None)
            if batch is None:
                return
            seeds = clip_seeds(batch.ids, self.seed, self.epoch)
            yield dataclasses.replace(batch, seeds=seeds)
            del batch  # free it before the next one is read

    def _embed(self, clips: Batch) -> Mapping[str, Tensor]:
        # Seeds torch's own generators; only draws from the clips' own seeds are independent of the
        # chunk size.
        seed = mix(self.seed, self.epoch, zlib.crc32(clips.ids[0].encode()))
        torch.default_generator.manual_seed(seed)
        if self.accelerator.device.type == "cuda":
            torch.cuda.manual_seed(seed)
        # Move chunk by chunk: a batch of any size stays in the memory of the CPU.
        clips = clips.to(self.accelerator.device, non_blocking=True)
        return check_outputs(self.model(clips.inputs, **self.arguments(clips)), clips)

    def _report_chunks(self, sizes: list[int]) -> None:
        self.chunks = sizes
        if min(sizes) == self.chunk.share:
            return
        at_a_time = ", ".join(map(str, sizes if len(set(sizes)) > 1 else sizes[:1]))
        self.log.say(
            f"from step {self.steps_done + 1} on {at_a_time} of {self.chunk.share} clips at a time,"
            f" as memory allows; the batch is {self.settings.batch_size} as before"
        )
        self.log.chunks(self.epoch + 1, self.steps_done, sizes)

    def _log_step(self, value: Tensor, terms: Mapping[str, Tensor]) -> None:
        values = {"loss": value.item()}
        parts = {f"loss/{term}": part.item() for term, part in terms.items()}
        values |= {name: part for name, part in parts.items() if not math.isnan(part)}
        absent = {term for term in terms if f"loss/{term}" not in values}
        self.absent = absent if self.absent is None else self.absent & absent
        values["learning_rate"] = float(self.schedule.get_last_lr()[0])
        self.log.train(self.epoch + 1, self.steps_done, values)

    def _say_absent(self) -> None:
        """Warn once of terms that no clip had the modalities for."""
        if self.absent:
            said = ", ".join(sorted(self.absent))
            self.log.say(
                f"WARNING: no clip of the logged steps had what these terms of the loss need, so"
                f" they are not trained: {said}; check the data, or leave them out"
            )
        self.absent = set()

    def _end_epoch(self) -> None:
        self._say_absent()
        self.train_set.end_epoch()
        self.model.eval()
        results = self.evaluate(self.unwrapped)
        epoch = self.epoch + 1
        self.log.validation(epoch, self.steps_done, results)
        name, score = self.best.read(results, epoch)
        self.log.say(f"epoch {epoch}: {name} {score:.1f}" if name else f"epoch {epoch}")
        self.epoch, self.batch = epoch, 0
        is_better = score > self.best.score
        if self.accelerator.num_processes > 1:  # all do what the main one does
            is_better = bool(self.step.agreement.gather(is_better)[0])
        self.best.add(score, is_better)
        if is_better:
            self._write(BEST, lambda folder: self.write_model(folder, self.unwrapped))
        if (reason := self.why_ended) is not None:
            self.log.end(epoch, self.steps_done, reason)
        self._save()

    def _save(self) -> None:
        """Write ``last``.

        FloatingPointError: weights or the optimizer's state are not finite; nothing is written.
        """
        self.weights.look(self.steps_done, self.saved)
        if self.folder is None:
            return
        self._write(LAST, functools.partial(self._write_last, pack_state(self)))
        self.saved = self.steps_done
        self.wishes.begin()

    def _write_last(self, state: Mapping[str, Any], folder: Path) -> None:
        self.write_model(folder, self.unwrapped)
        torch.save(state, folder / STATE)

    def _write(self, name: str, write: Callable[[Path], None]) -> None:
        if self.folder is None:
            return
        check_finite(self.unwrapped.state_dict(), self.steps_done)  # alike on all ranks
        if self.accelerator.is_main_process:
            facts = facts_of(self, self.folder.config)
            keep = self.settings.keep_last if name == LAST else 1
            write_checkpoint(self.folder.path / name, write, self.unwrapped, facts, keep)
        distributed.meet(f"writing {name}")  # the others may read it next
