"""Which unlabelled cases, slices or patches to annotate: scores from arrays, and one strategy a file."""
