"""Runtimes, which run a network; one per file, each implementing `runtime.Runtime`."""
