"""Predictions made into labels: which voxels are kept, and the dataset that they are trained on."""
