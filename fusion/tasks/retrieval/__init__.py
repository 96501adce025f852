"""Text to video and back, in every direction: the model, the test, its table and report."""
