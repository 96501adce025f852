"""Media files, features, clips and batches."""
