"""Distill with Unlabelled: a student that also learns what its teacher says of images without labels."""

from itertools import repeat
from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from nnunet_ext.losses.distillation import teacher_kl
from nnunet_ext.losses.ramps import ConstantRamp, LinearRamp
from nnunet_ext.teaching.case_file import case_file, teacher_folder, write_packed
from nnunet_ext.teaching.record import TOGETHER, TaughtFold, TeacherError, TeacherRecord
from nnunet_ext.trainers.fewer_labels.unlabelled_cases import unlabelled_folder
from nnunet_ext.trainers.names import TrainerNameError, trainer_class

CASES = ("case1", "case2")
NEW = ("new1", "new2")


@pytest.fixture
def with_unlabelled(taught, write_teacher):
    """`with_unlabelled(name, **options)`: as `taught`, with two images of 1 and -1 that both folds' members teach."""

    def make(name, *, regions=False, trained_on=CASES, **options):
        trainer = taught(name, regions=regions, **options)
        folder = unlabelled_folder(Path(trainer.preprocessed_dataset_folder))
        folder.mkdir(exist_ok=True)
        signs = np.random.default_rng(1).choice(np.float32([-1, 1]), size=(2, 1, 3, 40, 40))
        images = dict(zip(NEW, signs, strict=True))
        for case, image in images.items():
            for file in folder.glob(f"{case}*"):
                file.unlink()  # of a trainer before
            labels, blocks = np.zeros(image.shape, np.int16), {"chunks": image.shape, "blocks": image.shape}
            nnUNetDatasetBlosc2.save_case(image, labels, {"class_locations": {}}, str(folder / case), **blocks)
        write_teacher(teacher_folder(folder), images, regions=regions)
        together = TaughtFold([{"model": "m", "name": "n", "sha256": "0"}], list(NEW), list(trained_on))
        TeacherRecord(2 if regions else 3, regions, 4, {}, {TOGETHER: together}).save(teacher_folder(folder))
        return trainer

    return make


def new_batch(seed=0):
    """A batch without labels, as the loader gives it."""
    generator = torch.Generator().manual_seed(seed)
    teacher = torch.rand((2, 2, 32, 32), generator=generator) / 2
    return {"data": torch.randn((2, 1, 32, 32), generator=generator), "target": [None, teacher]}


def flat(network):
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


@pytest.mark.parametrize("regions", [False, True])
def test_the_teacher_of_an_image_without_labels_is_moved_with_it(with_unlabelled, regions):
    """1 and -1 have 0.4 and 0.05, so interpolated values i have 0.225 + 0.175 i, but for voxels at the border."""
    np.random.seed(0)
    torch.manual_seed(0)
    trainer = with_unlabelled("nnUNetTrainerDistill_Unlabelled", regions=regions)
    trainer.get_dataloaders()
    for _ in range(4):
        batch = next(trainer.unlabelled)
        image, teacher = batch["data"], batch["target"][-1]
        assert set(batch["keys"]) <= {*NEW}
        assert (image.shape, teacher.shape) == ((2, 1, 32, 32), (2, 2, 32, 32))
        assert torch.equal(teacher[:, 0], teacher[:, 1])
        inside = teacher[:, 0] > 0.049
        assert inside.float().mean() > 0.5
        expected = 0.225 + 0.175 * image[:, 0]
        assert torch.isclose(teacher[:, 0], expected, atol=1e-3)[inside].float().mean() > 0.8


def test_with_a_weight_of_0_it_is_distill_bit_for_bit(with_unlabelled):
    """Same batches, same losses, same weights; no image without labels is asked for."""
    distill = with_unlabelled("nnUNetTrainerDistill_member0")
    ours = with_unlabelled("nnUNetTrainerDistill_Unlabelled_member0", unlabelled_ramp=ConstantRamp(0))
    losses = []
    for trainer in (distill, ours):
        np.random.seed(0)
        torch.manual_seed(0)
        loader, _ = trainer.get_dataloaders()
        batches = [next(loader) for _ in range(2)]
        ours.unlabelled = iter([])
        trainer.network.train()
        trainer.on_train_epoch_start()
        losses.append([trainer.train_step(batch)["loss"] for batch in batches])
    assert losses[0] == losses[1]
    assert torch.equal(flat(distill.network), flat(ours.network))


@pytest.mark.parametrize("regions", [False, True])
def test_the_loss_gains_the_divergence_on_images_without_labels(make_trainer, random_batch, regions):
    """(1 - a) L + a T^2 KL + w T^2 KL, with w = 0.5; validation has no images without labels."""
    name = "nnUNetTrainerDistill80_Unlabelled_TeacherTemperature4_member0"
    trainer = make_trainer(name, regions=regions)
    batch, new = random_batch(trainer, 0), new_batch()
    trainer.unlabelled = iter([new])
    trainer.network.train()
    with torch.no_grad():
        output = trainer.network(batch["data"])
        base = trainer.loss.base(output, batch["target"][:-1])
        known = teacher_kl(output[0], batch["target"][-1], temperature=4, regions=regions).mean()
        found = trainer.network(new["data"])[0]
        unknown = teacher_kl(found, new["target"][-1], temperature=4, regions=regions).mean()
    labelled = float(0.2 * base + 0.8 * known)
    assert trainer.validation_step(batch)["loss"] == pytest.approx(labelled, rel=1e-5)
    step = trainer.train_step(batch)
    assert step["loss"] == pytest.approx(labelled + 0.5 * float(unknown), rel=1e-5)
    assert step["loss term Unlabelled"] == pytest.approx(float(unknown), rel=1e-5)
    assert trainer.divergence.images is trainer.divergence.probabilities is None
    assert next(trainer.unlabelled, None) is None  # one batch per iteration


def test_a_student_comes_closer_to_its_teacher_on_images_without_labels(make_trainer, random_batch):
    trainer = make_trainer("nnUNetTrainerDistill_Unlabelled_member0", unlabelled_ramp=ConstantRamp(10))
    trainer.unlabelled = repeat(new_batch())
    trainer.network.train()
    divergence = [trainer.train_step(random_batch(trainer, 0))["loss term Unlabelled"] for _ in range(16)]
    assert divergence[-1] < 0.8 * divergence[0]


def test_a_resumed_training_equals_an_uninterrupted_one(make_trainer, run_epochs):
    """With a weight that depends on the epoch."""
    name, ramp = "nnUNetTrainerDistill_Unlabelled_member0_4epochs", LinearRamp(0.1, 1)

    def new(**options):
        trainer = make_trainer(name, unlabelled_ramp=ramp, **options)
        trainer.unlabelled = repeat(new_batch())
        return trainer

    whole, cut, resumed = new(), new(save_every=1), new(initialize=False)
    run_epochs(whole, 3)
    run_epochs(cut, 2)
    resumed.load_checkpoint(str(Path(cut.output_folder) / "checkpoint_latest.pth"))
    assert resumed.current_epoch == 2
    run_epochs(resumed, 3)
    assert resumed.loss_with_terms.weights[-1] == pytest.approx(0.1 + 0.9 * 2 / 4)
    assert torch.equal(flat(resumed.network), flat(whole.network))


@pytest.mark.parametrize("wrapped", ["DDP", "compile"])
def test_ddp_and_torch_compile_train_the_same(make_trainer, random_batch, tmp_path, wrapped):
    """Each runs the network twice before it goes back."""
    trainers = []
    for _ in range(2):
        trainer = make_trainer("nnUNetTrainerDistill_Unlabelled_member0")
        trainer.is_ddp = True
        trainer.loss = trainer._build_loss()  # with DDP, nnU-Net's uses every output
        trainer.is_ddp = False
        trainer.unlabelled = repeat(new_batch())
        trainers.append(trainer)
    plain, other = trainers
    if wrapped == "compile":
        other.network = torch.compile(other.network, backend="eager")
    else:
        distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
        other.network = DistributedDataParallel(other.network)
    for trainer in trainers:
        trainer.network.train()
        for step in range(2):
            trainer.train_step(random_batch(trainer, step))
    if wrapped == "DDP":
        distributed.destroy_process_group()
    torch.testing.assert_close(flat(other.network), flat(plain.network), rtol=1e-4, atol=1e-6)


def test_images_without_labels_need_a_teacher_that_has_not_seen_them(with_unlabelled):
    leaking = with_unlabelled("nnUNetTrainerDistill_Unlabelled", trained_on=[*CASES, "new2"])
    with pytest.raises(TeacherError, match="such as new2 of the cases without labels"):
        leaking.get_dataloaders()
    trainer = with_unlabelled("nnUNetTrainerDistill_Unlabelled")
    unlabelled = unlabelled_folder(Path(trainer.preprocessed_dataset_folder))
    folder = teacher_folder(unlabelled)
    write_packed(np.zeros((2, 3, 40, 39), np.float16), case_file(folder, "new2"), patch_size=[32, 32])
    with pytest.raises(TeacherError, match="new2: it was preprocessed again"):
        trainer.get_dataloaders()
    case_file(folder, "new1").unlink()
    with pytest.raises(TeacherError, match=r"such as new1\. Run nnunet_ext teach --unlabelled"):
        trainer.get_dataloaders()
    (folder / "teacher.json").unlink()
    with pytest.raises(TeacherError, match="Run nnunet_ext teach --unlabelled"):
        trainer.get_dataloaders()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Unlabelled", "Unlabelled changes Distill"),
        ("Distill_Unlabelled_DSD", "what the network returns in training"),
        ("Distill80_Unlabelled_MeanTeacher", "what the network returns in training"),
    ],
)
def test_names_with_unlabelled_that_make_no_sense_are_refused(name, message):
    with pytest.raises(TrainerNameError, match=message):
        trainer_class(f"nnUNetTrainer{name}")
