"""Test-time augmentation, one transform per file: each changes the input and undoes itself on the logits."""
