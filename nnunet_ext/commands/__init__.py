"""What each command does, as a typed function of its options."""
