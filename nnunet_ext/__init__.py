"""nnunet_ext: trainers, checkpoint ensembles and uncertainty for nnU-Net v2."""

__version__ = "0.1.0"
