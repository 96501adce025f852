"""Ways to find the nearest clips.

==========  ======================================================================================
engine.py   what all of them do; how candidates are compared exactly
exact.py    every clip, with NumPy
ivf.py      inverted lists of FAISS, stored beside the vectors
server.py   a Qdrant server
choice.py   which one an index uses
rank.py     the answer to a question, with any of them
==========  ======================================================================================
"""

NAMES = ("exact", "faiss", "qdrant")
