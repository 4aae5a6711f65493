"""Parts that average weights over a training."""
