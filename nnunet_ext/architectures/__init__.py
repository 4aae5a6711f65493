"""Networks and wrappers of networks."""
