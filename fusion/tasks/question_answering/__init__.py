"""Answers to questions about pictures and films: the model, the test, its table and report."""
