"""The table of all words that the name of a trainer may hold.

`PARTS` is the table of all words that a name may hold. Its order is the order of inheritance: a part comes before
those whose values it overrides.
"""

from __future__ import annotations

from nnunet_ext.trainers.averaging.ema import EMA
from nnunet_ext.trainers.averaging.swa import SWA
from nnunet_ext.trainers.data.bagging import Bagging
from nnunet_ext.trainers.length_and_seed.independent_member import IndependentMember
from nnunet_ext.trainers.length_and_seed.training_length import Epochs, Iterations
from nnunet_ext.trainers.losses.dice_focal import DiceFocal, DiceFocalPaper
from nnunet_ext.trainers.networks.deeplab import DeepLab
from nnunet_ext.trainers.networks.mc_dropout import MCDropout
from nnunet_ext.trainers.networks.posterior import Posterior
from nnunet_ext.trainers.networks.streaming import Streaming, StreamingFixed, StreamingFixedUNetD3P, StreamingUNetD3P
from nnunet_ext.trainers.part import Part
from nnunet_ext.trainers.schedules.cyclical import Cyclical
from nnunet_ext.trainers.schedules.rmsprop import RMSprop
from nnunet_ext.trainers.supervision.self_distillation import (
    DS,
    DSD,
    SDD,
    SDE,
    DSDFeatureL2,
    DSDFull,
    DSDMeanTeacher,
    DSDReversedTeacher,
)

CHECKPOINT_PAPER = "arXiv 2212.06278"
DISTILLATION_PAPER = "arXiv 2306.03271"
STREAMING_PAPER = "arXiv 2502.09269"
TRAINING_OUTPUT = frozenset({"what the network returns in training"})

# fmt: off
PARTS: tuple[Part, ...] = (
    Part("<n>epochs", Epochs, frozenset({"the number of epochs"}),
         "trains for n epochs", "", "nnUNetTrainerCyclical_250epochs", attribute="epochs"),
    Part("<n>iters", Iterations, frozenset({"the iterations of an epoch"}),
         "n training iterations an epoch, a fifth of it for validation", "", "nnUNetTrainer_50iters",
         attribute="iterations"),
    Part("member<k>", IndependentMember, frozenset({"the seed"}),
         "an independent run with its own seed, for deep ensembles", "arXiv 1612.01474",
         "nnUNetTrainer_member2", attribute="member", smallest=0),
    Part("Cyclical", Cyclical, frozenset({"the learning-rate schedule", "checkpoint_swa.pth"}),
         "three cycles, samples the weights on each cycle's plateau; 1200 epochs by default", CHECKPOINT_PAPER,
         "nnUNetTrainerCyclical"),
    Part("Cyclical<M>", Cyclical, frozenset({"the learning-rate schedule", "checkpoint_swa.pth"}),
         "the same with M cycles", CHECKPOINT_PAPER, "nnUNetTrainerCyclical5_500epochs", attribute="cycles"),
    Part("SWA", SWA, frozenset({"the learning-rate schedule", "checkpoint_swa.pth"}),
         "averages the weights of the last quarter of the epochs: checkpoint_swa.pth", "arXiv 1803.05407",
         "nnUNetTrainerSWA"),
    Part("EMA", EMA, frozenset({"checkpoint_ema.pth"}),
         "moving average of the weights over the iterations: checkpoint_ema.pth", "", "nnUNetTrainerEMA"),
    Part("DSD", DSD, TRAINING_OUTPUT,
         "dual self-distillation: levels of the U-Net teach each other, in encoder and decoder",
         DISTILLATION_PAPER, "nnUNetTrainerDSD_Cyclical"),
    Part("SDD", SDD, TRAINING_OUTPUT,
         "self-distillation of the decoder only", DISTILLATION_PAPER, "nnUNetTrainerSDD"),
    Part("SDE", SDE, TRAINING_OUTPUT,
         "self-distillation of the encoder only", DISTILLATION_PAPER, "nnUNetTrainerSDE"),
    Part("DS", DS, TRAINING_OUTPUT,
         "ground truth at every level of the decoder, no distillation", DISTILLATION_PAPER, "nnUNetTrainerDS"),
    Part("DSDFull", DSDFull, TRAINING_OUTPUT,
         "dual self-distillation at the image's resolution, as in the paper", DISTILLATION_PAPER,
         "nnUNetTrainerDSDFull_NoDeepSupervision"),
    Part("DSDMeanTeacher", DSDMeanTeacher, TRAINING_OUTPUT,
         "ablation: the mean of all levels is the teacher", DISTILLATION_PAPER, "nnUNetTrainerDSDMeanTeacher"),
    Part("DSDReversedTeacher", DSDReversedTeacher, TRAINING_OUTPUT,
         "ablation: the teachers are at the other ends", DISTILLATION_PAPER, "nnUNetTrainerDSDReversedTeacher"),
    Part("DSDFeatureL2", DSDFeatureL2, TRAINING_OUTPUT,
         "ablation: the features themselves are compared, too", DISTILLATION_PAPER, "nnUNetTrainerDSDFeatureL2"),
    Part("RMSprop", RMSprop, frozenset({"the optimizer", "the learning-rate schedule"}),
         "RMSprop with warm-up and cosine, as the Streaming paper's code", STREAMING_PAPER,
         "nnUNetTrainerStreaming_RMSprop"),
    Part("Bagging", Bagging, frozenset({"the training cases"}),
         "trains on a bootstrap sample of the fold's cases; member<k> gives the k-th", "Breiman 1996",
         "nnUNetTrainerBagging_member1"),
    Part("posterior<M>", Posterior, frozenset(),
         "M networks as one, for checkpoint_posterior.pth in the stock predictor", CHECKPOINT_PAPER,
         "nnUNetTrainer_posterior30", attribute="posterior_size", internal=True),
    Part("Streaming", Streaming, TRAINING_OUTPUT,
         "two classifiers, mixed by what they remember of all slices", STREAMING_PAPER, "nnUNetTrainerStreaming"),
    Part("Streaming<K>", Streaming, TRAINING_OUTPUT,
         "the same with K classifiers", STREAMING_PAPER, "nnUNetTrainerStreaming3", attribute="classifiers"),
    Part("StreamingFixed", StreamingFixed, TRAINING_OUTPUT,
         "two classifiers with equal weights", STREAMING_PAPER, "nnUNetTrainerStreamingFixed"),
    Part("StreamingFixed<K>", StreamingFixed, TRAINING_OUTPUT,
         "the same with K classifiers", STREAMING_PAPER, "nnUNetTrainerStreamingFixed3", attribute="classifiers"),
    Part("StreamingUNetD3P", StreamingUNetD3P, TRAINING_OUTPUT,
         "the planned network and a DeepLabV3+, mixed by their memory", STREAMING_PAPER,
         "nnUNetTrainerStreamingUNetD3P"),
    Part("StreamingFixedUNetD3P", StreamingFixedUNetD3P, TRAINING_OUTPUT,
         "the same with the weights 0.7 and 0.3", STREAMING_PAPER, "nnUNetTrainerStreamingFixedUNetD3P"),
    Part("MCDropout", MCDropout, frozenset({"dropout"}),
         "dropout in the two deepest levels, for predict --members mc-dropout:10", "arXiv 1506.02142",
         "nnUNetTrainerMCDropout"),
    Part("DeepLab", DeepLab, frozenset({"the network", "dropout"}),
         "a DeepLabV3+ instead of the planned network", "arXiv 1802.02611", "nnUNetTrainerDeepLab"),
    Part("DiceFocal", DiceFocal, frozenset({"the loss"}),
         "Dice plus ten times focal loss", STREAMING_PAPER, "nnUNetTrainerStreaming_DiceFocal"),
    Part("DiceFocalPaper", DiceFocalPaper, frozenset({"the loss"}),
         "the same as in the released code: Dice without the factor 2", STREAMING_PAPER,
         "nnUNetTrainerStreaming_DiceFocalPaper"),
)
# fmt: on
