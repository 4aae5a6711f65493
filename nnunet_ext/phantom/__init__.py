"""Synthetic datasets in nnU-Net's raw format: hearts, and tumours with regions and ignored voxels.

Nothing is downloaded and no patient data are used.
"""

from __future__ import annotations

from nnunet_ext.phantom.cardiac import CARDIAC_LABELS, cardiac_case
from nnunet_ext.phantom.dataset import write_cardiac_dataset, write_regions_dataset
from nnunet_ext.phantom.tumour import tumour_case

__all__ = ["CARDIAC_LABELS", "cardiac_case", "tumour_case", "write_cardiac_dataset", "write_regions_dataset"]
