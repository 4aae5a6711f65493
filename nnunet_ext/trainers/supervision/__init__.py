"""Parts that change how the levels of a network are supervised."""
