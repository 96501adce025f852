"""Data sets of questions, by the names that configs use."""

from fusion.data.questions.films import FilmQuestions
from fusion.data.questions.pictured import PicturedQuestions
from fusion.data.questions.scenes import scenes
from fusion.data.questions.sets import easy_vqa, vqa_v2

QUESTION_SETS = {
    "scenes": scenes,
    "vqa_v2": vqa_v2,
    "easy_vqa": easy_vqa,
    "questions": PicturedQuestions,
    "film_questions": FilmQuestions,
}
