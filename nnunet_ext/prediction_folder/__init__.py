"""What lies in an output folder: cases, table, maps, packing, lock, writer."""
