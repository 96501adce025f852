"""Where films are decoded: by the processor, or by NVDEC, the video decoder of NVIDIA's GPUs."""

from __future__ import annotations

import logging
import os
from typing import Any

import av
from av.codec.hwaccel import HWAccel, hwdevices_available

logger = logging.getLogger(__name__)

VARIABLE = "FUSION_DECODE_ON"
CPU, CUDA = DEVICES = ("cpu", "cuda")
_refused: set[str] = set()  # devices that this process could not open


def decoding_device() -> str:
    """Return where films are decoded: ``FUSION_DECODE_ON``, or the processor.

    Raises:
        ValueError: no such device.
    """
    device = os.environ.get(VARIABLE) or CPU
    if device not in DEVICES:
        raise ValueError(f"{VARIABLE} must be {' or '.join(DEVICES)}; got {device!r}")
    return device


def open_on(device: str, name: str, **options: Any) -> Any:
    """Open a file whose pictures a device decodes; they come back to the memory of the processor.

    Where the device cannot be opened, the processor decodes, and a warning says so once. It also
    decodes what the device does not know (H.264 with 10 bits, say). ``av.FFmpegError`` as of
    ``av.open``.
    """
    if device == CPU or device in _refused:
        return av.open(name, **options)
    try:
        if device not in hwdevices_available():
            raise RuntimeError(f"this build of FFmpeg has no {device}")
        return av.open(name, hwaccel=HWAccel(device, allow_software_fallback=True), **options)
    except (av.FFmpegError, RuntimeError) as error:
        found = av.open(name, **options)  # raises where the file is the reason
        _refused.add(device)
        why = getattr(error, "strerror", None) or error
        text = "%s=%s: the device cannot be opened (%s); the processor decodes"
        logger.warning(text, VARIABLE, device, why)
        return found
