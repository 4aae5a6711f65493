"""Parts that start from pre-trained weights."""
