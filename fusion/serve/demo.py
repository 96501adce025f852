"""A demo on the same index in Gradio, ready for a Space of the Hugging Face hub.

    python -m fusion.serve.demo films.index

It shows what the page of ``fusion serve`` shows, by Gradio's parts. Of a film a browser gets only
the seconds of a hit, cut out: no folder is opened to it, and films in any format can be played.
Texts of captions are shown by parts that do not read markup; never put them into ``gr.HTML``.
"""

from __future__ import annotations

import argparse
import io
import math
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fusion.data.media.decode import open_media
from fusion.data.media.encode import write_clip
from fusion.data.media.streams import choose
from fusion.data.media.window import read_audio, read_frames
from fusion.modalities import members
from fusion.search.index import Index
from fusion.serve.decoding import LimitedDecoder, Limits
from fusion.serve.questions import Media
from fusion.serve.schemas import Refused
from fusion.serve.service import NAMES, Service, Wish

ANYTHING = "anything"
EVERY_FILM = "all films"
UPLOAD = "200mb"  # of each file
KEPT = (3600, 3600)  # seconds: how often, and after how long, files of visitors are deleted
FPS, RATE = 25.0, 16_000  # of the clips that are shown: pictures and samples a second
SIDE = 360  # pixels of their shorter side, at most
LONGEST = 60.0  # seconds of a clip that are shown
PLAIN = (160, 90)  # width and height of the picture of a clip without one


class Demo:
    """What happens behind the parts of the demo.

    Args:
        index: that is searched.
        folder: for the clips that are shown; Gradio copies them from there.
    """

    def __init__(self, index: Index, folder: Path) -> None:
        self.folder = folder
        decoder = LimitedDecoder(Limits())
        self.service = Service(index, Media(index.model, decoder))
        about = self.service.about()
        self.words: Mapping[str, str] = about["words"]
        self.within = {self._in_words(c, about): c for c in about["combinations"]}

    def _in_words(self, combination: str, about: Mapping[str, Any]) -> str:
        return " + ".join(self.words[name] for name in members(combination, about["modalities"]))

    def films(self) -> list[tuple[str, int]]:
        """Return names and numbers of all films."""
        return [(film["name"], film["id"]) for film in self.service.films()]

    def ask(
        self,
        words: str | None,
        sound: str | None,
        picture: str | None,
        film: str | None,
        within: str,
        only: int | str,
        top: float,
    ) -> tuple[list[tuple[Any, str]], list[dict[str, Any]], str]:
        """Answer a question: pictures with captions, the hits, and a line on them."""
        given = {"audio": sound, "picture": picture, "video": film}
        files = {name: Path(path) for name, path in given.items() if path}
        wish = self._wish(within, only, top)
        return self._show(lambda: self.service.ask(words or "", files, (0.0, None), wish))

    def near(
        self, hit: dict[str, Any] | None, within: str, only: int | str, top: float
    ) -> tuple[list[tuple[Any, str]], list[dict[str, Any]], str]:
        """Find the clips like a hit; see :meth:`ask`."""
        if hit is None:
            return [], [], "Choose a hit first."
        return self._show(lambda: self.service.near(hit["id"], self._wish(within, only, top)))

    def _wish(self, within: str, only: int | str, top: float) -> Wish:
        chosen = [self.within[within]] if within in self.within else []
        return Wish(int(top), chosen, only if isinstance(only, int) else None)

    def _show(self, search: Any) -> tuple[list[tuple[Any, str]], list[dict[str, Any]], str]:
        try:
            answer = search()
        except Refused as error:
            unknown = f" Not known: {', '.join(error.unknown)}." if error.unknown else ""
            return [], [], f"{error.error}.{unknown}"
        hits = answer["hits"]
        parts = [f"{len(hits)} hits." if hits else "Nothing was found."]
        if answer["unknown"]:
            parts.append(
                f"Left out, as the model does not know it: {', '.join(answer['unknown'])}."
            )
        return [(self._picture(hit), self.line(hit)) for hit in hits], hits, " ".join(parts)

    def _picture(self, hit: Mapping[str, Any]) -> Any:
        from PIL import Image

        if hit["thumbnail"] is None:
            return Image.new("RGB", PLAIN, (40, 44, 52))
        return Image.open(io.BytesIO(self.service.thumbnail(hit["id"])))

    def line(self, hit: Mapping[str, Any]) -> str:
        """Write a hit and why it was found as a line."""
        why = [f"{NAMES.get(name, name)} {value:.2f}" for name, value in sorted(hit["by"].items())]
        time = f"{clock(hit['start'])}-{clock(hit['end'])}"
        return "  ".join([f"{hit['score']:.2f}", hit["film"]["name"], time, *why])

    def open(
        self, hits: Sequence[dict[str, Any]], place: int
    ) -> tuple[str | None, str, dict[str, Any] | None]:
        """Give the film of a hit's seconds, what is known of the hit, and the hit."""
        if not 0 <= place < len(hits):
            return None, "", None
        hit = hits[place]
        lines = [self.line(hit), hit["text"]]
        path = Path()
        try:
            path = self.service.film_path(hit["film"]["id"])
            target = self.folder / f"{hit['id']}-{hit['film']['id']}.mp4"
            shown: str | None = str(cut(path, hit["start"], hit["end"], target))
        except (Refused, ValueError, OSError) as error:
            shown = None
            problem = str(error).replace(f"{path.parent}/", "")  # of no use to a visitor
            lines.append(f"It cannot be shown: {problem}")
        return shown, "\n".join(filter(None, lines)), hit


def cut(film: Path, start: float, end: float, target: Path) -> Path:
    """Write some seconds of a film, at most LONGEST, as a file that browsers play.

    Raises:
        MediaError: the film cannot be read.
        ValueError: it has nothing in these seconds.
    """
    end = min(end, start + LONGEST)
    with open_media(film) as container:
        stream = choose(container, "video")
        size = (stream.height, stream.width) if stream is not None else None
    frames = None
    if size is not None:
        scale = min(1.0, SIDE / min(size))
        height, width = (2 * max(1, math.floor(scale * side / 2)) for side in size)
        frames = read_frames(film, FPS, height, width, start, end)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:  # others may read the target
        made = Path(folder) / target.name
        write_clip(made, frames, FPS, read_audio(film, RATE, start, end), RATE)
        made.replace(target)
    return target


def clock(second: float) -> str:
    """Write a time as ``1:02``."""
    return f"{round(second) // 60}:{round(second) % 60:02}"


def build(index: Index) -> Any:
    """Make the demo of an index, a ``gradio.Blocks``; ``launch`` starts it.

    Raises:
        SearchError: the index or its model cannot be used.
        ImportError: Gradio is not installed.
    """
    gr = _gradio()
    folder = tempfile.TemporaryDirectory(prefix="fusion-demo-")
    demo = Demo(index, Path(folder.name))
    about = demo.service.about()
    with gr.Blocks(title="fusion", analytics_enabled=False, delete_cache=KEPT) as blocks:
        gr.Markdown(f"# fusion\n{about['films']} films, {about['clips']} clips")
        with gr.Row():
            words = gr.Textbox(label="What is seen, heard or said?", scale=5, autofocus=True)
            go = gr.Button("Search", variant="primary", scale=1)
        with gr.Accordion("Ask with a sound, a picture or a film", open=False), gr.Row():
            sound = gr.Audio(
                label="Sound", type="filepath", sources=["upload", "microphone"], buttons=[]
            )
            picture = gr.Image(
                label="Picture", type="filepath", sources=["upload", "clipboard"], buttons=[]
            )
            film = gr.Video(label="Film", sources=["upload"], buttons=[])
        with gr.Row():
            within = gr.Dropdown(
                [ANYTHING, *demo.within], value=ANYTHING, label="Search in what is"
            )
            only = gr.Dropdown([EVERY_FILM, *demo.films()], value=EVERY_FILM, label="Film")
            top = gr.Slider(1, 100, value=12, step=1, label="Hits")
        told = gr.Textbox(label="Answer", interactive=False)
        with gr.Row():
            gallery = gr.Gallery(label="Hits", columns=3, scale=3, allow_preview=False, buttons=[])
            with gr.Column(scale=2):
                player = gr.Video(
                    label="The seconds of the hit", autoplay=True, interactive=False, buttons=[]
                )
                facts = gr.Textbox(label="Hit", lines=3, interactive=False)
                like = gr.Button("More like this")
        hits, hit = gr.State([]), gr.State(None)
        question, answer = [words, sound, picture, film], [gallery, hits, told]
        options = [within, only, top]
        gr.on([go.click, words.submit], demo.ask, question + options, answer, api_name="search")
        like.click(demo.near, [hit, *options], answer, api_name=False)
        gallery.select(_opener(gr, demo), hits, [player, facts, hit], api_name=False)
    blocks.fusion_folder = folder  # lives as long as the demo
    return blocks


def _opener(gr: Any, demo: Demo) -> Any:
    """Gradio finds by the annotation that a function wants the event."""

    def open_hit(event, hits):  # type: ignore[no-untyped-def]
        return demo.open(hits, event.index)

    open_hit.__annotations__ = {"event": gr.SelectData}
    return open_hit


def _gradio() -> Any:
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # it is read when Gradio starts
    try:
        import gradio
    except ImportError as error:
        raise ImportError(
            f"the demo needs Gradio ({error}); install it by: pip install 'fusion[demo]'"
        ) from None
    return gradio


def launch(blocks: Any, **options: Any) -> Any:
    """Start a demo on this machine alone, unless ``options`` of Gradio say otherwise."""
    safe = {"server_name": "127.0.0.1", "share": False, "max_file_size": UPLOAD}
    return blocks.launch(**safe | options)


def main() -> None:
    """Serve the demo of an index."""
    parser = argparse.ArgumentParser(prog="python -m fusion.serve.demo", description=main.__doc__)
    parser.add_argument("index", help="folder of the index")
    parser.add_argument("--port", type=int, default=7860, help="default: 7860")
    given = parser.parse_args()
    try:
        launch(build(Index(given.index)), server_port=given.port)
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"error: {' '.join(str(error).split())}")


if __name__ == "__main__":
    main()
