"""What is learnt from predictions with known truth: temperatures, expected Dice, verdicts, safe masks."""
