"""Parts that replace the loss or add terms to it."""
