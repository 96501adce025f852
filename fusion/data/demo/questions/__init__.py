"""Built-in pictures and questions: one to four things of the corpus' shapes and colours.

things.py    a thing in a picture, and the nouns for it
ask.py       kinds of questions, wordings, and the rule that answers them
compose.py   things for which questions have given answers
plan.py      the content of all pictures, without rendering
draw.py      a picture
ceilings.py  the highest accuracies possible
folder.py    all of it on disk
"""

from fusion.data.demo.questions.folder import scenes_folder

__all__ = ["scenes_folder"]
