"""The built-in corpus: narrated films of moving shapes and playing instruments.

sentences.py    attributes and the words for them
plan.py         the content of a film, without rendering
independent.py  version 2: what is seen says nothing of what is heard
cutaways.py     version 3: only both together say what a sentence is about
versions.py     the versions
pictures.py     the frames of a scene
sounds.py       the samples of a scene
film.py         a film as an mp4 file; worker.py is a process that renders some of them
perceiver.py    the highest scores possible
corpus.py       the corpus on disk
"""

from fusion.data.demo.corpus import CorpusError, demo_corpus
from fusion.data.demo.versions import VERSION

__all__ = ["VERSION", "CorpusError", "demo_corpus"]
