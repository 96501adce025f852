"""Readers for files of strangers: no code in a file runs, and memory follows the file's size."""
