"""Sums over the members of an ensemble, computed slab by slab."""
