"""When a step happens in a film, and which film is meant: tests of a trained retrieval model."""
