"""Parts that set how long a training takes and its seed."""
