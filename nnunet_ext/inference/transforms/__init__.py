"""Test-time augmentation, one transform per file; each transforms the input and undoes that on the logits."""
