"""Parts that change the network."""
