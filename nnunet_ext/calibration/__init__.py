"""What is learnt from predictions with known truth: temperatures, predicted Dice, verdicts, covering masks."""
