"""Which combinations of modalities to pull together: train subsets of the terms, compare them."""
