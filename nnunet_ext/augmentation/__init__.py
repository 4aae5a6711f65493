"""Augmentation: pure functions of arrays and tensors, one method per file."""
