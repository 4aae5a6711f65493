"""Trained models for machines without nnU-Net: networks in other formats, and what is needed to run them."""
