"""Which films there are, how they are cut and embedded, and which are there twice."""
