"""Trainers that nnU-Net runs by name: `nnUNetv2_train ... -tr nnUNetTrainerCyclical_250epochs`."""
