"""Files that are whole, and checkpoints that are read without running code."""
