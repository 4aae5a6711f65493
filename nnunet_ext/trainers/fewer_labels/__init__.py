"""Parts that learn from more than the labels of the training cases."""
