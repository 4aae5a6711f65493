"""Error maps without networks: corrupted segmentations, channels, splits, what was fitted, and its verdict."""
