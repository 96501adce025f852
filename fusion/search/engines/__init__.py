"""Ways to find the nearest clips; all give the same interface, see :mod:`.engine`."""
