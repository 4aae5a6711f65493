"""Students whose cases have a teacher."""

from pathlib import Path

import numpy as np
import pytest

from nnunet_ext.teaching.case_file import case_file, teacher_folder, write_packed
from nnunet_ext.teaching.packing import packed
from nnunet_ext.teaching.record import TaughtFold, TeacherRecord

CASES = ("case1", "case2")


@pytest.fixture(scope="session")
def write_teacher():
    """`write_teacher(folder, images, regions=..., top=4)`: writes a teacher's probabilities of images by name.

    That of every foreground output is 0.8 where the image is positive, and 0.1 elsewhere; divided by the number of
    these outputs.
    """

    def write(folder, images, *, regions, top=4):
        folder.mkdir(exist_ok=True)
        for case, image in images.items():
            foreground = np.repeat(np.where(image > 0, 0.8, 0.1), 2, axis=0) / 2
            whole = foreground if regions else np.concatenate([1 - foreground.sum(axis=0, keepdims=True), foreground])
            array = packed(whole.astype(np.float32), top, regions=regions)
            write_packed(array, case_file(folder, case), patch_size=[32, 32])

    return write


@pytest.fixture
def taught(make_trainer, preprocessed_cases, write_teacher):
    """`taught(name, **options)`: a trainer whose two cases each have a teacher that was trained on the other one."""

    def make(name, *, regions=False, top=4, **options):
        trainer = make_trainer(name, regions=regions, **options)
        images = preprocessed_cases(trainer)
        trainer.fold = "all"
        folder = teacher_folder(Path(trainer.preprocessed_dataset_folder))
        write_teacher(folder, dict(zip(CASES, images, strict=True)), regions=regions, top=top)
        members = [{"model": "m", "name": "n", "sha256": "0"}]
        folds = {str(fold): TaughtFold(members, [CASES[fold]], [CASES[1 - fold]]) for fold in (0, 1)}
        TeacherRecord(2 if regions else 3, regions, 4, {}, folds).save(folder)
        return trainer

    return make
