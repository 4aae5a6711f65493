"""The contents of an output folder: cases, table, maps, compressed files, lock, writer."""
