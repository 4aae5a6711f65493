"""Parts that change the learning-rate schedule or the optimizer."""
