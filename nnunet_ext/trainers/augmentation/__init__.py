"""Parts that change what images a training sees."""
