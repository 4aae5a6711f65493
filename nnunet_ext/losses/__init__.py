"""Loss functions: pure functions of tensors, one family per file."""
