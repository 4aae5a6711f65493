"""Loss functions: pure functions of tensors, one family a file."""
