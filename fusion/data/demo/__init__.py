"""The built-in corpus: narrated films of moving shapes and playing instruments.

sentences.py    attributes and the words for them
plan.py         the content of every film, without rendering
pictures.py     the frames of a scene
sounds.py       the samples of a scene
film.py         a film as an mp4 file; worker.py is a process that renders some of them
perceiver.py    the highest scores possible
corpus.py       the corpus on disk
"""

from fusion.data.demo.corpus import CorpusError, demo_corpus

__all__ = ["CorpusError", "demo_corpus"]
