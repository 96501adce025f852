"""Name the videos of a store that an older film reader read otherwise than today's.

The first reader (version 1) timed pictures of AVI and of files with missing time stamps otherwise,
did not mirror, took the first sound track, and did not continue time stamps that begin anew. Which
films this concerns is seen from their packets, so this takes far less time than extracting.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer

from fusion.data.features.store import FeatureStore
from fusion.data.media.crop import crop_of
from fusion.data.media.decode import Decoder, MediaError, open_media
from fusion.data.media.film import VERSION
from fusion.data.media.streams import BEST, tracks_of
from fusion.data.media.upright import upright
from fusion.extract.job import find_videos
from fusion.extract.settings import AUDIO
from fusion.extract.share import say
from fusion.words import number_of

_GAP, _OLD_GAP = 0.1, 0.25  # seconds between frames of sound: what is filled, and was filled
_OLD_BACK = 10.0  # seconds; time stamps that went back farther ended a film
_ONLY_TURNED = {  # filters of the matrices that are no mirrors
    (),
    (("transpose", "clock"),),
    (("transpose", "cclock"),),
    (("hflip", ""), ("vflip", "")),
}


def verify(
    videos: Sequence[str | Path], out: str | Path, root: str | Path | None = None
) -> dict[str, str]:
    """Print the videos of a store that are to be extracted again, and return why, by name.

    Args:
        videos: files and folders, as for :func:`.job.extract`.
        out: folder of the store.
        root: what the names of the videos are relative to.

    Raises:
        ValueError: there are no such files, or the store cannot be read.
    """
    store = FeatureStore(Path(out).expanduser())
    films = find_videos(videos, root, Path(out).expanduser())
    changed: dict[str, str] = {}
    current = unknown = 0
    for name in store.videos:
        if store.facts(name).get("reader", 1) >= VERSION:
            current += 1
        elif name not in films:
            unknown += 1
        elif reasons := list(differences(films[name], store.fields)):
            changed[name] = "; ".join(reasons)
    for name, why in changed.items():
        print(f"{name}: {why}")
    same = len(store) - current - unknown - len(changed)
    say(
        f"{store.location}: {number_of(len(store), 'video')}, {current} of this version of the"
        f" film reader ({VERSION}), {same} that it reads alike, {len(changed)} that it reads"
        f" otherwise, {unknown} whose file is not among those named"
    )
    if changed:
        say("extract the videos into a new store, or leave those named above out of your captions")
    return changed


def differences(path: Path, fields: Mapping[str, Any]) -> Iterator[str]:
    """Say what version 1 of the reader read otherwise in a file; nothing: it read all alike."""
    kinds = ["video"] * any(field in ("2d", "3d") for field in fields)
    kinds += ["audio"] * any(field in (AUDIO, "sound") for field in fields)
    try:
        with open_media(path) as container:
            decoder = Decoder(container, kinds, BEST)
            yield from _other_streams(path, container, decoder, kinds)
            yield from _other_times(decoder)
    except MediaError as error:
        yield f"cannot be read now ({str(error).removeprefix(f'{path}: ')})"


def _other_streams(
    path: Path, container: InputContainer, decoder: Decoder, kinds: Sequence[str]
) -> Iterator[str]:
    video = decoder.chosen["video"]
    if "video" in kinds and video is not None and any(crop_of(path, container, video)):
        yield "a border is cut off its pictures"
    sounds = tracks_of(container, "audio")
    if "audio" in kinds and sounds and decoder.chosen["audio"].index != sounds[0].index:
        yield "another sound track is taken"
    start = container.start_time or 0
    if abs(decoder.origin - start) > 1:
        yield f"second 0 is {(decoder.origin - start) / av.time_base:.3f} s later"


def _other_times(decoder: Decoder) -> Iterator[str]:
    """Decode the sound and the first picture; of the other pictures look at the packets alone."""
    found: dict[str, None] = {}
    due: dict[int, float] = {}
    upright_known = False
    length: int | None = 1
    for packet in decoder.packets():
        is_picture = packet.stream.type == "video"
        if is_picture:
            if packet.pts is None:
                found["pictures without time stamps are timed otherwise"] = None
            time = packet.dts if packet.dts is not None else packet.pts
            if time is not None:
                second = float(time * packet.time_base)
                if second < due.get(packet.stream_index, second) - _OLD_BACK:
                    found["what follows after time stamps that go back is read"] = None
                due[packet.stream_index] = second
            length = packet.duration
            if upright_known:
                continue
        for stream, frame, second in decoder.decode(packet):
            if is_picture:
                upright_known = True
                if tuple(upright(frame)[1]) not in _ONLY_TURNED:
                    found["its pictures are mirrored, or turned by no right angle"] = None
                break
            found |= dict.fromkeys(_other_sound(frame, second, due.get(stream.index)))
            due[stream.index] = second + frame.samples / frame.sample_rate
    if not length:
        found["how long its last picture is shown is estimated"] = None
    if decoder.moved:
        found["time stamps that begin anew are continued"] = None
    yield from found


def _other_sound(frame: Any, second: float, due: float | None) -> Iterator[str]:
    if frame.pts is None:
        yield "sound without time stamps is kept"
    if due is not None and _GAP < second - due <= _OLD_GAP:
        yield "short gaps in its sound are filled"
    if due is not None and second < due - _GAP:
        yield "sound that overlaps is left out"
