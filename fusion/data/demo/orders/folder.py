"""The films of the order classes on disk: rendered on first use, whole or not at all."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from tqdm import tqdm

from fusion.data.demo.corpus import render_once, write_csv
from fusion.data.demo.orders.draw import draw_film
from fusion.data.demo.orders.plan import PAIRS, VERSION, OrderFilm, check_size, plan_films
from fusion.data.demo.plan import SPLITS
from fusion.files import cache_folder, num_cores, replace_folder

FRAMES_PER_SECOND = 12
QUALITY = 24  # of x264, 0 best .. 51
BYTES_PER_FILM = 60_000  # more than a film takes


def orders_folder(films: int | None = None, *, cache: str | Path | None = None) -> Path:
    """Return the folder of the films of the order classes; render it on first use.

    The folder holds::

        videos/*.mp4                       72 x 72 pixels, 12 frames per second, no sound
        train.csv validation.csv test.csv  video (path from here), label, pair
        pairs.json                         the two classes of each pair
        version.json

    ``films`` and the errors are those of :func:`plan_films`. ``cache`` is the parent folder.

    Raises:
        CorpusError: the disk is full.
    """
    check_size(films)
    name = f"orders-v{VERSION}" if films is None else f"orders-v{VERSION}-{films}"
    folder = Path(cache or cache_folder()) / name
    if not (folder / "version.json").is_file():
        planned = plan_films(films)
        render_once(folder, BYTES_PER_FILM * len(planned), lambda: _render(folder, planned))
    return folder


def _render(folder: Path, films: Sequence[OrderFilm]) -> None:
    with replace_folder(folder) as new, ThreadPoolExecutor(num_cores()) as pool:
        (new / "videos").mkdir()
        done = pool.map(lambda film: (new / film.path).write_bytes(encode(draw_film(film))), films)
        for _ in tqdm(done, desc="rendering the order classes", total=len(films), unit="film"):
            pass
        for split in SPLITS:
            mine = [film for film in films if film.split == split]
            rows = [{"video": f.path, "label": f.label, "pair": f.pair} for f in mine]
            write_csv(new / f"{split}.csv", ["video", "label", "pair"], rows)
        (new / "pairs.json").write_text(json.dumps(PAIRS, indent=1))
        (new / "version.json").write_text(json.dumps({"version": VERSION, "films": len(films)}))


def encode(frames: np.ndarray) -> bytes:
    """Write (T, H, W, 3) uint8 frames as an mp4 film, each of them on its own.

    All frames are key frames of the same quality. A frame that is predicted from the one before
    looks different from a key frame, so its place in the film could be seen, and with it the order.
    """
    memory, convert = io.BytesIO(), VideoReformatter()  # one for all frames: slow to construct
    with av.open(memory, "w", format="mp4") as container:
        codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
        options = {"qp": str(QUALITY), "preset": "ultrafast"} if codec == "libx264" else {}
        added = container.add_stream(codec, FRAMES_PER_SECOND, options | {"threads": "1"})
        stream = cast(av.VideoStream, added)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        stream.codec_context.gop_size = 1
        if codec == "mpeg4":
            stream.codec_context.qmin = stream.codec_context.qmax = 3
        for place, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame = convert.reformat(frame, format="yuv420p", interpolation="FAST_BILINEAR")
            frame.pts = place
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return memory.getvalue()
