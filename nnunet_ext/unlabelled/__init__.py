"""A folder of images without labels made into a preprocessed nnU-Net dataset."""
