"""What runs a network, one runtime per file; all of them are a `runtime.Runtime`."""
