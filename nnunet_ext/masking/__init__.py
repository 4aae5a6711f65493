"""Which parts of an image a masked auto-encoder sees, and statistics over them; pure functions of tensors."""
