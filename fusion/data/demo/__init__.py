"""The built-in corpus: narrated films of moving shapes and playing instruments.

attributes.py   what can be seen and heard
sentences.py    how it is said
plan.py         what happens in which film, drawn without rendering anything
pictures.py     the frames of a scene
sounds.py       the samples of a scene
film.py         a film as an mp4 file; worker.py is a process that renders some of them
perceiver.py    what a perfect perceiver would score
corpus.py       all of it on disk
"""

from fusion.data.demo.corpus import CorpusError, demo_corpus

__all__ = ["CorpusError", "demo_corpus"]
