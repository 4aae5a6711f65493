"""Padding and blank slices of an image bear the same label in nnU-Net's data; the loader must tell them apart."""

import numpy as np
import pytest
import torch
from acvl_utils.cropping_and_padding.bounding_boxes import crop_and_pad_nd
from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.deep_supervision_downsampling import DownsampleSegForDSTransform
from batchgeneratorsv2.transforms.utils.remove_label import RemoveLabelTansform

from nnunet_ext.trainers.data.slice_padding import (
    ImagesOfDataset,
    MarkPadding,
    SegmentationOfImage,
    with_marked_padding,
)


def mark(image, segmentation):
    found = MarkPadding()(image=image.clone(), segmentation=segmentation.clone())
    return found["image"], found["segmentation"]


def test_slices_marked_as_padding_by_hand():
    # Five slices of 2 x 2: wholly outside, partly outside, inside, blank but inside, wholly outside
    rows = [[-1, -1, -1, -1], [-1, -1, -1, 0], [0, 1, 2, 0], [-2, -2, -2, -2], [-1, -1, -1, -1]]
    segmentation = torch.tensor(rows).reshape(1, 5, 2, 2)
    noise = torch.randn((3, 5, 2, 2), generator=torch.Generator().manual_seed(0))
    image, labels = mark(noise, segmentation)
    assert image[:, [0, 4]].isnan().all()  # in all channels
    assert torch.equal(image[:, 1:4], noise[:, 1:4])
    assert torch.equal(labels, torch.where(segmentation == -2, -1, segmentation))  # nnU-Net's own again


def test_a_slice_that_is_partly_blank_and_partly_outside_is_no_padding():
    image, _ = mark(torch.zeros((1, 1, 1, 2)), torch.tensor([-1, -2]).reshape(1, 1, 1, 2))
    assert image.isfinite().all()


def test_the_segmentation_of_the_previous_stage_does_not_matter():
    # A cascade has it in the second channel
    segmentation = torch.full((2, 2, 3, 3), -1)
    segmentation[0, 1] = 0
    segmentation[1, 0] = 2
    image, _ = mark(torch.ones((1, 2, 3, 3)), segmentation)
    assert image.isnan().flatten(2).all(dim=2).tolist() == [[True, False]]


def test_without_padding_nothing_changes():
    image = torch.randn((1, 3, 4, 4), generator=torch.Generator().manual_seed(0))
    segmentation = torch.zeros((1, 3, 4, 4), dtype=torch.int16)
    assert torch.equal(mark(image, segmentation)[0], image)


def test_the_mark_is_set_right_before_the_label_of_padding_is_removed():
    steps = [
        GaussianNoiseTransform(),
        RemoveLabelTansform(5, 0),
        MirrorTransform((0,)),
        RemoveLabelTansform(-1, 0),
        DownsampleSegForDSTransform([[1, 1, 1]]),
    ]
    given = ComposeTransforms(list(steps))
    found = with_marked_padding(given).transforms
    assert [type(step) for step in found[:3]] == [type(step) for step in steps[:3]]
    assert isinstance(found[3], MarkPadding)
    assert found[:3] + found[4:] == steps
    assert given.transforms == steps  # left as they were


@pytest.mark.parametrize("dtype", [np.int8, np.int16])
def test_cut_as_the_loader_cuts_padding_and_blank_voxels_differ(dtype):
    segmentation = np.array([[-1, 0, 1, -1]], dtype=dtype)  # one channel, one axis
    cut = crop_and_pad_nd(SegmentationOfImage(segmentation), [[-1, 5]], -1, cast_cropped_to=np.int16)
    assert cut.tolist() == [[-1, -2, 0, 1, -2, -1]]
    assert segmentation.tolist() == [[-1, 0, 1, -1]]
    assert np.asarray(SegmentationOfImage(segmentation)).tolist() == [[-2, 0, 1, -2]]


def test_a_dataset_is_otherwise_the_same():
    class Dataset:
        identifiers = ("a", "b")

        def load_case(self, identifier):
            return f"image {identifier}", np.array([[-1]]), "previous", {"spacing": 1}

    found = ImagesOfDataset(Dataset())
    image, segmentation, previous, properties = found.load_case("a")
    assert (image, previous, properties) == ("image a", "previous", {"spacing": 1})
    assert segmentation[:].tolist() == [[-2]]
    assert found.identifiers == ("a", "b")
