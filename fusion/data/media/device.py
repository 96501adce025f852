"""Where films are decoded: by the processor, or by NVDEC, the video decoder of NVIDIA's GPUs."""

from __future__ import annotations

import logging
import os
import threading
from typing import Any

import av
from av.codec.hwaccel import HWAccel

logger = logging.getLogger(__name__)

VARIABLE = "FUSION_DECODE_ON"
CPU, CUDA = DEVICES = ("cpu", "cuda")
_lock = threading.Lock()  # films are decoded by several threads
_is_usable: dict[str, bool] = {}  # by device, in this process


def decoding_device() -> str:
    """Return where this process decodes films: where ``FUSION_DECODE_ON`` says, if it can.

    If not, it is the processor, and a warning says so once.

    Raises:
        ValueError: no such device.
    """
    device = os.environ.get(VARIABLE) or CPU
    if device not in DEVICES:
        raise ValueError(f"{VARIABLE} must be {' or '.join(DEVICES)}; got {device!r}")
    if device == CPU:
        return CPU
    with _lock:
        if device not in _is_usable:
            _is_usable[device] = _try(device)
    return device if _is_usable[device] else CPU


def _try(device: str) -> bool:
    try:
        HWAccel(device).create(av.codec.Codec("h264", "r"))
    except (av.FFmpegError, ValueError, NotImplementedError, RuntimeError) as error:
        why = getattr(error, "strerror", None) or error
        text = "%s=%s: the device cannot be opened (%s); the processor decodes"
        logger.warning(text, VARIABLE, device, why)
        return False
    return True


def open_on(device: str, name: str, **options: Any) -> Any:
    """Open a file whose pictures a device decodes; they come back to the memory of the processor.

    What the device does not know, such as H.264 with 10 bits, the processor decodes.
    ``av.FFmpegError`` as of ``av.open``.
    """
    if device != CPU:
        options["hwaccel"] = HWAccel(device, allow_software_fallback=True)
    return av.open(name, **options)
