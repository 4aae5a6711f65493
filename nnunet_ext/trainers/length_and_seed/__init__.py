"""Parts that set the length and the seed of a training."""
