"""The training loop: any model, any loss, any data, on one process or many.

A run is a function of its config. The order of the clips is a function of (seed, epoch), all other
random numbers are functions of (seed, epoch, clip). So the position in the run is the whole random
state: a run that was killed continues from its last checkpoint with the same losses. The number of
processes and the chunk size change only rounding.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from safetensors import SafetensorError
from torch import Tensor, nn

from fusion.checkpoint import load_weights, read_state, save_weights
from fusion.distributed import broadcast_
from fusion.files import replace_folder
from fusion.interfaces import Loss, Result, TrainingSet
from fusion.models.batchnorm import batch_granularity
from fusion.tokens import Batch
from fusion.training.best import BestEpoch
from fusion.training.gradcache import check_outputs
from fusion.training.launch import Stopped, StopRequest
from fusion.training.log import RunLog, Stopwatch
from fusion.training.memory import ChunkSize
from fusion.training.optim import NonFiniteGuard, allocate_state
from fusion.training.run_folder import RunFolder
from fusion.training.sampler import EpochBatchSampler, clip_seeds, make_loader, mix
from fusion.training.settings import Settings
from fusion.training.step import ExactStep

STATE = "trainer.pt"


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
        self.write_model, self.evaluate, self.arguments = write_model, evaluate, arguments
        rank, world_size = accelerator.process_index, accelerator.num_processes
        self.batches = EpochBatchSampler(
            len(train_set), settings.batch_size, seed, rank, world_size, train_set.group
        )
        self.loader = make_loader(
            train_set, self.batches, collate, settings.num_workers, accelerator
        )
        self.steps = settings.epochs * len(self.batches)
        share = settings.batch_size // world_size
        self.chunk = ChunkSize(share, batch_granularity(model.train()), settings.chunk_size)
        self.chunks = [self.chunk.size] * world_size
        self.found_chunk = settings.chunk_size is not None
        # No DDP wrapper: it would communicate within a chunk, see ExactStep.
        self.model = accelerator.prepare_model(model, evaluation_mode=True)
        broadcast_([*model.parameters(), *model.buffers()])
        self._prepare_steps()
        self.epoch = self.batch = 0  # complete epochs, and batches of the current one
        self.best = BestEpoch(settings.best, settings.patience)
        self.absent: set[str] | None = None  # terms that no logged step could compute
        self.stop_request = StopRequest()
        self.reading = Stopwatch()  # how long steps waited for their clips

    def _prepare_steps(self) -> None:
        settings = self.settings
        optimizer = settings.make_optimizer(self.unwrapped)
        allocate_state(optimizer)
        self.schedule = settings.make_schedule(optimizer, len(self.batches))
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
            Stopped: SIGTERM or SIGINT was received; the state is saved in the folder, if any.
            FloatingPointError: the gradient was not finite in too many steps.
        """
        metrics = self.folder.metrics if self.folder else None
        self.log = RunLog(metrics, self.accelerator, self.steps, self.steps_done, self.epoch)
        stops = self.stop_request if self.folder else contextlib.nullcontext()
        with stops, contextlib.closing(self.log):
            while self.epoch < self.settings.epochs and not self.best.is_over:
                self._train_epoch()
                self._end_epoch()

    def resume(self) -> None:
        """Continue from the last checkpoint."""
        assert self.folder
        load_weights(self.unwrapped, self.folder.last)
        state = read_state(self.folder.last / STATE)
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        if self.accelerator.scaler is not None and state["scaler"] is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.loss.load_state_dict(state["loss"] or {})
        self.epoch, self.batch = (state["position"][name] for name in ("epoch", "batch"))
        self.best.score, self.best.waited = float(state["best"]), state.get("waited", 0)
        if state["chunk_size"] == self.settings.chunk_size:  # else the user has changed it
            self.chunk.limit(min(state["chunks"]))
            self.chunks = [self.chunk.size] * self.accelerator.num_processes
            self.found_chunk = True

    def _train_epoch(self) -> None:
        self.model.train()
        for batch in self.rest_of_epoch():
            value, terms = self.take_step(batch)
            del batch
            self.schedule.step()
            self.batch += 1
            self.log.step(self.settings.batch_size, self.reading.take())
            is_last = self.batch == len(self.batches)
            looks = is_last or self.steps_done % self.settings.log_every == 0
            if looks:  # reading values back from the device forces a synchronisation
                self.log.say(self.guard.look(self.steps_done))
                self._log_step(value, terms)
            received = self.stop_request.signal  # by any rank
            if self.accelerator.num_processes > 1:
                received = max(self.step.agreement.gather(received)) if looks else 0
            every = self.settings.save_every
            if received or (every and self.steps_done % every == 0):
                self._save()
            if received:
                raise Stopped(received)

    def take_step(self, batch: Batch) -> Result:
        """Take a step on this process' share of a batch, the first one in chunks that fit."""
        if not self.found_chunk:
            self.step.probe(batch)
            self.found_chunk = True
        return self.step(batch)

    def rest_of_epoch(self) -> Iterator[Batch]:
        """Read the batches that are left of the current epoch, with the seeds of their clips."""
        self.batches.epoch, self.batches.first = self.epoch, self.batch
        self.train_set.set_epoch(mix(self.seed, self.epoch))
        batches = iter(self.loader)
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
        self.log.say(self.guard.look(self.steps_done))
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
            self._write("best", lambda folder: self.write_model(folder, self.unwrapped))
        if (reason := self.why_ended) is not None:
            self.log.end(epoch, self.steps_done, reason)
        self._save()

    def _save(self) -> None:
        self._write("last", self._write_last)

    def _write_last(self, folder: Path) -> None:
        self.write_model(folder, self.unwrapped)
        scaler = self.accelerator.scaler
        state = {
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": scaler.state_dict() if scaler is not None else None,
            "loss": self.loss.state_dict(),
            "position": {"epoch": self.epoch, "batch": self.batch},
            "best": self.best.score,
            "waited": self.best.waited,
            "chunks": self.chunks,
            "chunk_size": self.settings.chunk_size,
        }
        torch.save(state, folder / STATE)

    def _write(self, name: str, write: Callable[[Path], None]) -> None:
        if self.folder and self.accelerator.is_main_process:
            path = self.folder.path / name
            try:
                with replace_folder(path) as folder:
                    write(folder)
            except (SafetensorError, RuntimeError, OSError) as error:  # all mean a full disk
                raise OSError(
                    f"{path} cannot be written ({error}); make room there and go on with"
                    " resume=true"
                ) from error
        self.accelerator.wait_for_everyone()  # the others may read it next
