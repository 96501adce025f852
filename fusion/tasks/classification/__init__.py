"""Classes of films: the model, the test, its table and report; films watched as they run."""
