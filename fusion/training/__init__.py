"""Training of any model with any loss, on any number of processes."""
