"""The machines that a plan is for."""

from __future__ import annotations

import dataclasses
import math


@dataclasses.dataclass(frozen=True)
class Machine:
    """Devices that train together, in machines that a network connects.

    Rates are decimal: 1 TFLOP/s is 1e12 operations a second, 1 Gbit/s is 1e9 bits a second.

    Attributes:
        devices: N.
        tflops: operations a second of a device, as its maker says it for dense matrices, 1e12.
        utilisation: share of it that a training reaches. It is assumed, or measured by a run.
        memory_gib: of a device.
        memory_tbps: bytes a second from and to the memory of a device, 1e12.
        read_gbps: what a machine reads from its disks or its storage, Gbit/s.
        network_gbps: between machines, of one machine and direction, Gbit/s.
        local_gbps: between the devices of a machine, of one device and direction, Gbit/s.
        per_machine: devices of a machine.
        cores: of a processor for each device, that read clips.
        clips_per_core: that a core reads in a second. None: 10,000 clips of features, or 20 of
            films, see ``docs/planning.md``.
        latency: seconds of one message between two ranks, about that of NVLink.

    Raises:
        ValueError: a number is not above 0.
    """

    devices: int = 1
    tflops: float = 989.0
    utilisation: float = 0.4
    memory_gib: float = 80.0
    memory_tbps: float = 3.0
    read_gbps: float = 50.0
    network_gbps: float = 400.0
    local_gbps: float = 3600.0
    per_machine: int = 8
    cores: int = 12
    clips_per_core: float | None = None
    latency: float = 5e-6

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name.replace('_', '-')} must be above 0; got {value:g}")
        if self.utilisation > 1:
            raise ValueError(f"utilisation must be at most 1; got {self.utilisation:g}")

    @property
    def flops(self) -> float:
        """Operations a second that a device does in training."""
        return self.tflops * 1e12 * self.utilisation

    @property
    def machines(self) -> int:
        """How many machines the devices are in."""
        return math.ceil(self.devices / self.per_machine)

    @property
    def in_a_machine(self) -> int:
        """How many devices a machine has that take part."""
        return min(self.devices, self.per_machine)

    @property
    def link(self) -> float:
        """Bytes a second of the narrowest part of a ring through all devices.

        A ring enters and leaves each machine once, so there all of the machine's network serves it.
        """
        local = self.local_gbps * 1e9 / 8
        if self.machines == 1:
            return local
        return min(local, self.network_gbps * 1e9 / 8)

    def exchange(self, total: float, messages: int = 1) -> float:
        """Return the seconds of an all-gather or a reduce-scatter of so many bytes in all."""
        if self.devices == 1:
            return 0.0
        hops = math.ceil(math.log2(self.devices))
        return (
            total * (self.devices - 1) / self.devices / self.link + messages * hops * self.latency
        )
