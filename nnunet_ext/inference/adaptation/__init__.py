"""Test-time adaptation: a member's norms are fitted to one case, without its ground truth, and then put back."""
