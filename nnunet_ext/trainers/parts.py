"""The table of all words that the name of a trainer may hold.

Its order is the order of inheritance: a part comes before those whose values it overrides. Mixins are named, not
imported: a name's own are, when it is used.
"""

from __future__ import annotations

from nnunet_ext.trainers.part import PLANNED, Claim, Kind, Part, Requirement

CHECKPOINT_PAPER = "arXiv 2212.06278"
DISTILLATION_PAPER = "arXiv 2306.03271"
STREAMING_PAPER = "arXiv 2502.09269"

CYCLICAL = "nnunet_ext.trainers.schedules.cyclical.Cyclical"
SELF_DISTILLATION = "nnunet_ext.trainers.supervision.self_distillation.DSD"
STREAMING = "nnunet_ext.trainers.networks.streaming.Streaming"
DEEPLAB = "nnunet_ext.trainers.networks.deeplab.DeepLab"

SAMPLING = frozenset({Claim.LEARNING_RATE, Claim.SWA_CHECKPOINT})
TRAINING_OUTPUT = frozenset({Claim.TRAINING_OUTPUT})
NETWORK = frozenset({Claim.NETWORK, Claim.PLANNED_NETWORK})  # of a network part: the planned network is not built
UNET = frozenset({Requirement.UNET})
SEGMENTATION = frozenset({Requirement.SEGMENTATION})
BOUNDARY = frozenset({Claim.BOUNDARY_TERM})

DISTILLING = ("DSD", "SDD", "SDE")  # have a teacher
SUPERVISING = (*DISTILLING, "DS")  # supervise the decoder's levels
MIXTURES = (
    *("Streaming", "Streaming<K>", "StreamingFixed", "StreamingFixed<K>"),
    *("StreamingUNetD3P", "StreamingFixedUNetD3P"),
)

# fmt: off
PARTS: tuple[Part, ...] = (
    Part("<n>epochs", Kind.LENGTH, "nnunet_ext.trainers.length_and_seed.training_length.Epochs",
         "trains for n epochs", "", "nnUNetTrainerCyclical_250epochs",
         claims=frozenset({Claim.EPOCHS}), attribute="epochs"),
    Part("<n>iters", Kind.LENGTH, "nnunet_ext.trainers.length_and_seed.training_length.Iterations",
         "n training iterations per epoch, a fifth of it for validation", "", "nnUNetTrainer_50iters",
         claims=frozenset({Claim.ITERATIONS}), attribute="iterations"),
    Part("member<k>", Kind.SEED, "nnunet_ext.trainers.length_and_seed.independent_member.IndependentMember",
         "an independent run with its own seed, for deep ensembles", "arXiv 1612.01474", "nnUNetTrainer_member2",
         claims=frozenset({Claim.SEED}), attribute="member", smallest=0),
    Part("Cyclical", Kind.SCHEDULE, CYCLICAL,
         "three cycles, samples the weights on each cycle's plateau; 1200 epochs by default", CHECKPOINT_PAPER,
         "nnUNetTrainerCyclical", claims=SAMPLING),
    Part("Cyclical<M>", Kind.SCHEDULE, CYCLICAL,
         "the same with M cycles", CHECKPOINT_PAPER, "nnUNetTrainerCyclical5_500epochs",
         claims=SAMPLING, attribute="cycles"),
    Part("SWA", Kind.AVERAGING, "nnunet_ext.trainers.averaging.swa.SWA",
         "averages the weights of the last quarter of the epochs: checkpoint_swa.pth", "arXiv 1803.05407",
         "nnUNetTrainerSWA", claims=SAMPLING),
    Part("EMA", Kind.AVERAGING, "nnunet_ext.trainers.averaging.ema.EMA",
         "moving average of the weights over the iterations: checkpoint_ema.pth", "", "nnUNetTrainerEMA",
         claims=frozenset({Claim.EMA_CHECKPOINT})),
    Part("DSD", Kind.SUPERVISION, SELF_DISTILLATION,
         "dual self-distillation: levels of the U-Net teach each other, in encoder and decoder", DISTILLATION_PAPER,
         "nnUNetTrainerDSD_Cyclical", claims=TRAINING_OUTPUT, requires=UNET),
    Part("SDD", Kind.SUPERVISION, SELF_DISTILLATION,
         "self-distillation of the decoder only", DISTILLATION_PAPER, "nnUNetTrainerSDD",
         claims=TRAINING_OUTPUT, requires=UNET, values={"encoder_weight": 0.0}),
    Part("SDE", Kind.SUPERVISION, SELF_DISTILLATION,
         "self-distillation of the encoder only", DISTILLATION_PAPER, "nnUNetTrainerSDE",
         claims=TRAINING_OUTPUT, requires=UNET, values={"decoder_weight": 0.0}),
    Part("DS", Kind.SUPERVISION, SELF_DISTILLATION,
         "ground truth at every level of the decoder, no distillation", DISTILLATION_PAPER, "nnUNetTrainerDS",
         claims=TRAINING_OUTPUT, requires=UNET, values={"encoder_weight": 0.0, "decoder_weight": 0.0}),
    Part("FullResolution", Kind.SUPERVISION, "",
         "self-distillation at the image's resolution, as in the paper", DISTILLATION_PAPER,
         "nnUNetTrainerDSD_FullResolution_NoDeepSupervision",
         changes=SUPERVISING, values={"distillation_resolution": "full"}),
    Part("SumSupervision", Kind.SUPERVISION, "",
         "the sum over the supervised levels, as in the paper, instead of their mean", DISTILLATION_PAPER,
         "nnUNetTrainerDSD_SumSupervision", changes=SUPERVISING, values={"mean_supervision": False}),
    Part("Temperature<n>", Kind.SUPERVISION, "",
         "softens teacher and students by n instead of 3", DISTILLATION_PAPER, "nnUNetTrainerDSD_Temperature2",
         changes=DISTILLING, attribute="temperature"),
    Part("AveragedTeacher", Kind.SUPERVISION, "",
         "ablation: the mean of all levels is the teacher", DISTILLATION_PAPER, "nnUNetTrainerDSD_AveragedTeacher",
         claims=frozenset({Claim.TEACHER}), changes=DISTILLING, values={"teacher": "mean"}),
    Part("ReversedTeacher", Kind.SUPERVISION, "",
         "ablation: the teachers are at the other ends", DISTILLATION_PAPER, "nnUNetTrainerDSD_ReversedTeacher",
         claims=frozenset({Claim.TEACHER}), changes=DISTILLING, values={"teacher": "reversed"}),
    Part("FeatureL2", Kind.SUPERVISION, "",
         "ablation: the features of encoder and decoder are compared, too", DISTILLATION_PAPER,
         "nnUNetTrainerDSD_FeatureL2", changes=("DSD",), values={"vector_weight": 1e-4}),
    Part("RMSprop", Kind.SCHEDULE, "nnunet_ext.trainers.schedules.rmsprop.RMSprop",
         "RMSprop with warm-up and cosine, as the Streaming paper's code", STREAMING_PAPER,
         "nnUNetTrainerStreaming_RMSprop", claims=frozenset({Claim.OPTIMIZER, Claim.LEARNING_RATE})),
    Part("Bagging", Kind.DATA, "nnunet_ext.trainers.data.bagging.Bagging",
         "trains on a bootstrap sample of the fold's cases; member<k> gives the k-th", "Breiman 1996",
         "nnUNetTrainerBagging_member1", claims=frozenset({Claim.TRAINING_CASES})),
    Part("CaseWeights", Kind.DATA, "nnunet_ext.trainers.data.case_weights.CaseWeights",
         "how often each case is loaded and how much it counts, from case_weights.csv beside the plans", "",
         "nnUNetTrainerCaseWeights", requires=SEGMENTATION),
    Part("CarveMix", Kind.AUGMENTATION, "nnunet_ext.trainers.augmentation.carve_mix.CarveMix",
         "lesions of another training case in half of the loaded images", "arXiv 2108.06883",
         "nnUNetTrainerCarveMix", requires=SEGMENTATION),
    Part("AdvChain", Kind.AUGMENTATION, "nnunet_ext.trainers.augmentation.adv_chain.AdvChain",
         "consistency with images changed where the network is weakest", "Chen et al. 2022",
         "nnUNetTrainerAdvChain", claims=TRAINING_OUTPUT, requires=SEGMENTATION),
    Part("posterior<M>", Kind.NETWORK, "nnunet_ext.trainers.networks.posterior.Posterior",
         "M networks as one, for checkpoint_posterior.pth in the stock predictor", CHECKPOINT_PAPER,
         "nnUNetTrainer_posterior30", attribute="posterior_size", internal=True),
    Part("Streaming", Kind.NETWORK, STREAMING,
         "two classifiers, mixed by what they remember of all slices", STREAMING_PAPER, "nnUNetTrainerStreaming",
         claims=TRAINING_OUTPUT, shares=NETWORK),
    Part("Streaming<K>", Kind.NETWORK, STREAMING,
         "the same with K classifiers", STREAMING_PAPER, "nnUNetTrainerStreaming3",
         claims=TRAINING_OUTPUT, shares=NETWORK, attribute="classifiers"),
    Part("StreamingFixed", Kind.NETWORK, STREAMING,
         "two classifiers with equal weights", STREAMING_PAPER, "nnUNetTrainerStreamingFixed",
         claims=TRAINING_OUTPUT, shares=NETWORK, values={"weighting": "fixed"}),
    Part("StreamingFixed<K>", Kind.NETWORK, STREAMING,
         "the same with K classifiers", STREAMING_PAPER, "nnUNetTrainerStreamingFixed3",
         claims=TRAINING_OUTPUT, shares=NETWORK, values={"weighting": "fixed"}, attribute="classifiers"),
    Part("StreamingUNetD3P", Kind.NETWORK, STREAMING,
         "the planned network and a DeepLabV3+, mixed by their memory", STREAMING_PAPER,
         "nnUNetTrainerStreamingUNetD3P",
         claims=frozenset({Claim.TRAINING_OUTPUT, Claim.NETWORK}), values={"networks": (PLANNED, DEEPLAB)}),
    Part("StreamingFixedUNetD3P", Kind.NETWORK, STREAMING,
         "the same with the weights 0.7 and 0.3, the paper's best", STREAMING_PAPER,
         "nnUNetTrainerStreamingFixedUNetD3P",
         claims=frozenset({Claim.TRAINING_OUTPUT, Claim.NETWORK}),
         values={"networks": (PLANNED, DEEPLAB), "weighting": "fixed", "fixed_weights": (0.7, 0.3)}),
    Part("PaperMixture", Kind.SUPERVISION, "",
         "Streaming's loss sees a second softmax, as in the paper", STREAMING_PAPER,
         "nnUNetTrainerStreaming_PaperMixture",
         requires=frozenset({Requirement.LABELS}), changes=MIXTURES, values={"mixture": "paper"}),
    Part("MCDropout", Kind.NETWORK, "nnunet_ext.trainers.networks.mc_dropout.MCDropout",
         "dropout in the two deepest levels, for predict --members mc-dropout:10", "arXiv 1506.02142",
         "nnUNetTrainerMCDropout", claims=frozenset({Claim.DROPOUT}), requires=UNET),
    Part("DeepLab", Kind.NETWORK, DEEPLAB,
         "a DeepLabV3+ instead of the planned network", "arXiv 1802.02611", "nnUNetTrainerDeepLab",
         claims=NETWORK, lacks=UNET),
    Part("DiceFocal", Kind.LOSS, "nnunet_ext.trainers.losses.dice_focal.DiceFocal",
         "Dice plus ten times focal loss", STREAMING_PAPER, "nnUNetTrainerStreaming_DiceFocal",
         claims=frozenset({Claim.LOSS})),
    Part("DiceFocalPaper", Kind.LOSS, "nnunet_ext.trainers.losses.dice_focal.DiceFocalPaper",
         "the same as in the released code: Dice without the factor 2", STREAMING_PAPER,
         "nnUNetTrainerStreaming_DiceFocalPaper", claims=frozenset({Claim.LOSS})),
    Part("RegionFocal", Kind.LOSS, "nnunet_ext.trainers.losses.region_focal.RegionFocal",
         "region-related focal loss: structures of which little is found count more", "Li et al. 2023",
         "nnUNetTrainerRegionFocal", claims=frozenset({Claim.LOSS})),
    Part("Focal", Kind.LOSS, "nnunet_ext.trainers.losses.focal.Focal",
         "focal loss alone", "arXiv 1708.02002", "nnUNetTrainerFocal", claims=frozenset({Claim.LOSS})),
    Part("Boundary", Kind.LOSS_TERM, "nnunet_ext.trainers.losses.boundary.Boundary",
         "boundary loss, which takes up to half of the loss from 30 to 60 % of the training", "arXiv 1812.07032",
         "nnUNetTrainerBoundary", claims=BOUNDARY, requires=SEGMENTATION),
    Part("BoundaryRebalance", Kind.LOSS_TERM, "nnunet_ext.trainers.losses.boundary.BoundaryRebalance",
         "the same, 1 % more of the loss in each epoch", "arXiv 1812.07032", "nnUNetTrainerBoundaryRebalance",
         claims=BOUNDARY, requires=SEGMENTATION),
    Part("HausdorffDT", Kind.LOSS_TERM, "nnunet_ext.trainers.losses.hausdorff_distance.HausdorffDT",
         "adds a Hausdorff loss by distance transforms", "arXiv 1904.10030", "nnUNetTrainerHausdorffDT",
         requires=SEGMENTATION),
    Part("HausdorffErosion", Kind.LOSS_TERM, "nnunet_ext.trainers.losses.hausdorff_erosion.HausdorffErosion",
         "adds a Hausdorff loss by erosion", "arXiv 1904.10030", "nnUNetTrainerHausdorffErosion",
         requires=SEGMENTATION),
    Part("HausdorffConv", Kind.LOSS_TERM, "nnunet_ext.trainers.losses.hausdorff_convolution.HausdorffConv",
         "adds a Hausdorff loss by convolutions with balls", "arXiv 1904.10030", "nnUNetTrainerHausdorffConv",
         requires=SEGMENTATION),
    Part("ClDice", Kind.LOSS_TERM, "nnunet_ext.trainers.losses.cldice.ClDice",
         "overlap of centre lines takes up to half of the loss, for tubes", "arXiv 2003.07311", "nnUNetTrainerClDice",
         requires=SEGMENTATION),
    Part("SkeletonRecall", Kind.LOSS_TERM, "nnunet_ext.trainers.losses.skeleton_recall.SkeletonRecall",
         "adds the recall of centre lines, for tubes", "arXiv 2404.03010", "nnUNetTrainerSkeletonRecall",
         requires=SEGMENTATION),
    Part("Euler", Kind.LOSS_TERM, "nnunet_ext.trainers.losses.euler.Euler",
         "adds the error of the Euler characteristic late in training", "", "nnUNetTrainerEuler",
         requires=SEGMENTATION),
    Part("ACE", Kind.LOSS_TERM, "nnunet_ext.trainers.losses.marginal_calibration.ACE",
         "adds the marginal calibration error", "arXiv 2403.06759", "nnUNetTrainerACE",
         requires=SEGMENTATION),
)
# fmt: on

# Words of earlier versions, and what to write instead.
RENAMED = {
    "DSDFull": "DSD_FullResolution",
    "DSDMeanTeacher": "DSD_AveragedTeacher",
    "DSDReversedTeacher": "DSD_ReversedTeacher",
    "DSDFeatureL2": "DSD_FeatureL2",
}
