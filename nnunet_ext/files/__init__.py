"""Files that are written completely or not at all, and checkpoints that are read without running code."""
