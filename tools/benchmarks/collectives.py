"""Count what a process sends: a wrapper around torch.distributed that knows nothing of fusion."""

import collections
import contextlib
from unittest import mock

import torch
import torch.distributed as dist

GATHER = ("all_gather_into_tensor", "all_gather_single")
SCATTER = ("reduce_scatter_tensor", "reduce_scatter_single", "all_to_all_single")


class Collectives:
    """Counts within its ``with`` block.

    Attributes:
        counts: collectives by name; ``votes``, those of int64 numbers; ``waits``, how often this
            process waited for one to end. A vote is a collective too.
        sent: bytes that this process sends, by name, as W processes with n bytes each do at best:
            (W - 1) n to gather, (W - 1) / W n to scatter, 2 (W - 1) / W n to reduce.
        largest: bytes of the largest tensor that was sent or received, by name.
    """

    def __init__(self):
        self.counts, self.sent = collections.Counter(), collections.Counter()
        self.largest = collections.Counter()

    def __enter__(self):
        self._patches = contextlib.ExitStack()
        for name in ("all_reduce", *GATHER, *SCATTER):
            if hasattr(dist, name):
                call = self._counted(name, getattr(dist, name))
                self._patches.enter_context(mock.patch.object(dist, name, call))
        return self

    def __exit__(self, *error):
        self._patches.close()

    def _counted(self, name, call):
        def counted(*tensors, async_op=False, **words):
            self._count(name, [t for t in tensors if isinstance(t, torch.Tensor)])
            work = call(*tensors, async_op=async_op, **words)
            if not async_op:
                self.counts["waits"] += 1
            return _Work(work, self.counts) if async_op else work

        return counted

    def _count(self, name, tensors):
        ranks, source = dist.get_world_size(), tensors[-1]
        kind = "gather" if name in GATHER else "scatter" if name in SCATTER else "reduce"
        factor = {"gather": ranks - 1, "scatter": (ranks - 1) / ranks}
        self.counts[kind] += 1
        self.counts["votes"] += source.dtype == torch.int64
        self.sent[kind] += source.nbytes * factor.get(kind, 2 * (ranks - 1) / ranks)
        self.largest[kind] = max(self.largest[kind], *(tensor.nbytes for tensor in tensors))

    def per(self, steps):
        """Give collectives, votes, waits and MiB sent, by kind, of one of so many steps."""
        kinds = {k: n / steps for k, n in self.counts.items() if k not in ("votes", "waits")}
        return {
            "collectives": sum(kinds.values()),
            **{name: self.counts[name] / steps for name in ("votes", "waits")},
            "by_kind": kinds,
            "sent_MiB": sum(self.sent.values()) / steps / 2**20,
            "sent_MiB_by_kind": {k: n / steps / 2**20 for k, n in self.sent.items()},
        }


class _Work:
    """The handle of a collective that was begun."""

    def __init__(self, work, counts):
        self._work, self._counts = work, counts

    def wait(self, *words):
        self._counts["waits"] += 1
        return self._work.wait(*words)

    def __getattr__(self, name):
        return getattr(self._work, name)
