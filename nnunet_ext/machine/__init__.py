"""What this machine offers: devices, memory, and how freed memory is handled."""
