"""Parts that replace the loss."""
