"""Work past one machine: command lines as jobs of a queue, and cases as tasks of a Ray cluster."""
