"""Read and write films; what is computed from pictures and sound."""
