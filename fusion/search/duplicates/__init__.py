"""Which films of an index are the same, wholly or in part."""
