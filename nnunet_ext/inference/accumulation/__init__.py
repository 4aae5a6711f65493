"""What is summed up over the members of an ensemble, slab by slab."""
