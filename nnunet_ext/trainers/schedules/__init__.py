"""Parts that change how the learning rate and the optimizer go."""
