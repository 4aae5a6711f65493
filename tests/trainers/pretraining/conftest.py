"""Short pre-trainings on two cases."""

from pathlib import Path

import numpy as np
import pytest
import torch


def image_batch(seed=0, *, channels=1):
    return {"data": torch.randn((2, channels, 32, 32), generator=torch.Generator().manual_seed(seed))}


def path_in(trainer, name):
    return Path(trainer.output_folder) / name


@pytest.fixture(scope="session")
def batch_of():
    """`batch_of(seed, channels=1)`: two images of noise in the form of nnU-Net's loader."""
    return image_batch


@pytest.fixture(scope="session")
def file_of():
    """`file_of(trainer, name)`: a file in its fold folder."""
    return path_in


@pytest.fixture
def train(make_trainer, preprocessed_cases):
    """`train(name, stop_in_epoch=..., start_from=...)`: the trainer after a short training on two cases."""

    def run(name, *, stop_in_epoch=None, start_from=None):
        torch.manual_seed(0)
        trainer = make_trainer(name, initialize=False, picture_every=2)
        trainer.num_iterations_per_epoch = trainer.num_val_iterations_per_epoch = 2
        trainer.save_every = 1
        if hasattr(trainer, "vector_size"):
            trainer.vector_size = 32  # ten million weights less
        preprocessed_cases(trainer)
        if start_from is not None:
            trainer.load_checkpoint(str(start_from))
        start_of_epoch = trainer.on_epoch_start

        def seeded_start():  # nnU-Net's loader draws from numpy; everything else must not depend on it
            if trainer.current_epoch == stop_in_epoch:
                raise KeyboardInterrupt
            np.random.seed(trainer.current_epoch)
            torch.manual_seed(trainer.current_epoch)
            start_of_epoch()

        trainer.on_epoch_start = seeded_start
        if stop_in_epoch is None:
            trainer.run_training()
        else:
            with pytest.raises(KeyboardInterrupt):
                trainer.run_training()
        return trainer

    return run
