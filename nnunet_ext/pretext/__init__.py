"""What trainings without labels do to images, and what they ask a network about them; pure functions of tensors."""
