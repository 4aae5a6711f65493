"""What is fitted to predictions with ground truth: temperatures, predicted Dice, verdicts, covering masks."""
