"""Parts that learn from images without labels."""
