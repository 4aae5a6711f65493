"""Parts that change what the levels of a network are trained with."""
