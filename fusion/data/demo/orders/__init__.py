"""Built-in films of which only the order of the frames tells the class."""

from fusion.data.demo.orders.folder import orders_folder
from fusion.data.demo.orders.plan import CLASSES, PAIRS

__all__ = ["CLASSES", "PAIRS", "orders_folder"]
