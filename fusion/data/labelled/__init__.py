"""Data sets of films with a class each, by the names that configs use."""

from fusion.data.labelled.films import LabelledFilms
from fusion.data.labelled.orders import order_classes

LABELLED_SETS = {"labelled_films": LabelledFilms, "order_classes": order_classes}
