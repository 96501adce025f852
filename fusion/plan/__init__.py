"""``fusion plan``: what a training needs of a machine, counted before it runs."""
