"""A teacher's probabilities on disk: how they are packed, their files, and the record of who taught which case."""
