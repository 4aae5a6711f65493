"""What this machine has to offer: memory and how it is kept."""
