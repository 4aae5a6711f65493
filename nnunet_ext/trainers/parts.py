"""The table of parts: every word that a trainer's name may contain.

Its order is the order of inheritance: a part comes before those whose values it overrides. Mixins are given as dotted
paths and imported only when a name uses them. `nnunet_ext trainers` prints the summaries.
"""

from __future__ import annotations

from nnunet_ext.trainers.part import PLANNED, Claim, Kind, Part, Requirement

CHECKPOINT_PAPER = "arXiv 2212.06278"
DISTILLATION_PAPER = "arXiv 2306.03271"
STREAMING_PAPER = "arXiv 2502.09269"
PRE_TRAINING_PAPER = "arXiv 2410.23132"
ADAPTER_PAPER = "arXiv 2106.09685"

CYCLICAL = "nnunet_ext.trainers.schedules.cyclical.Cyclical"
SELF_DISTILLATION = "nnunet_ext.trainers.supervision.self_distillation.DSD"
FINETUNE = "nnunet_ext.trainers.fine_tuning.finetune.Finetune"
LORA = "nnunet_ext.trainers.fine_tuning.lora.LoRA"
STREAMING = "nnunet_ext.trainers.networks.streaming.Streaming"
DEEPLAB = "nnunet_ext.trainers.networks.deeplab.DeepLab"

SAMPLING = frozenset({Claim.LEARNING_RATE, Claim.SWA_CHECKPOINT})
TRAINING_OUTPUT = frozenset({Claim.TRAINING_OUTPUT})
NETWORK = frozenset({Claim.NETWORK, Claim.PLANNED_NETWORK})  # a network part does not build the planned network
LEARNING_RATE = frozenset({Claim.LEARNING_RATE})
TRAINED_ENCODER = frozenset({Claim.TRAINED_ENCODER})
ADAPTING = LEARNING_RATE | TRAINED_ENCODER | {Claim.EMA_CHECKPOINT}  # a mean of B·A is not that of B times that of A
UNET = frozenset({Requirement.UNET})
SEGMENTATION = frozenset({Requirement.SEGMENTATION})
ONE_NETWORK = frozenset({Requirement.ONE_NETWORK})
PRE_TRAINED = UNET | SEGMENTATION | ONE_NETWORK
LOSS_SHARE = frozenset({Claim.LOSS_SHARE})

DISTILLING = ("DSD", "SDD", "SDE")  # parts with a teacher
SUPERVISING = (*DISTILLING, "DS")  # parts that supervise the decoder's levels
FINE_TUNING = ("Finetune", "Finetune<n>", "LoRA", "LoRA<r>")  # parts that start from pre-trained weights
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
         "trains for n iterations per epoch instead of 250 and validates on n/5 batches", "",
         "nnUNetTrainer_50iters",
         claims=frozenset({Claim.ITERATIONS}), attribute="iterations"),
    Part("member<k>", Kind.SEED, "nnunet_ext.trainers.length_and_seed.independent_member.IndependentMember",
         "seeds the training with k; trainings with different k form a deep ensemble", "arXiv 1612.01474",
         "nnUNetTrainer_member2",
         claims=frozenset({Claim.SEED}), attribute="member", smallest=0),
    Part("LoRA", Kind.FINE_TUNING, LORA,
         "Finetune that trains low-rank changes of the transferred convolutions, of rank 8", ADAPTER_PAPER,
         "nnUNetTrainerLoRA", claims=ADAPTING, requires=PRE_TRAINED),
    Part("LoRA<r>", Kind.FINE_TUNING, LORA,
         "LoRA with rank r instead of 8", ADAPTER_PAPER, "nnUNetTrainerLoRA4_WithDecoder",
         claims=ADAPTING, requires=PRE_TRAINED, attribute="rank"),
    Part("Finetune", Kind.FINE_TUNING, FINETUNE,
         "starts from -pretrained_weights: warm-ups of decoder and network, decay; 1100 epochs", PRE_TRAINING_PAPER,
         "nnUNetTrainerFinetune", claims=LEARNING_RATE, requires=PRE_TRAINED),
    Part("Finetune<n>", Kind.FINE_TUNING, FINETUNE,
         "Finetune with warm-ups of n epochs each instead of 50", PRE_TRAINING_PAPER,
         "nnUNetTrainerFinetune15_150epochs",
         claims=LEARNING_RATE, requires=PRE_TRAINED, attribute="warm_up"),
    Part("DecoderWarmUp<n>", Kind.FINE_TUNING, "",
         "modifies Finetune or LoRA: n epochs of decoder warm-up", PRE_TRAINING_PAPER,
         "nnUNetTrainerFinetune_DecoderWarmUp0_WithDecoder",
         changes=FINE_TUNING, attribute="decoder_warm_up", smallest=0),
    Part("NetworkWarmUp<n>", Kind.FINE_TUNING, "",
         "modifies Finetune or LoRA: n epochs of network warm-up", PRE_TRAINING_PAPER,
         "nnUNetTrainerFinetune_NetworkWarmUp10",
         changes=FINE_TUNING, attribute="network_warm_up", smallest=0),
    Part("WithDecoder", Kind.FINE_TUNING, "",
         "modifies Finetune or LoRA: transfers the decoder as well", PRE_TRAINING_PAPER,
         "nnUNetTrainerFinetune_WithDecoder", changes=FINE_TUNING, values={"with_decoder": True}),
    Part("FrozenEncoder", Kind.FINE_TUNING, "",
         "modifies Finetune: the encoder is frozen in all epochs; one warm-up", PRE_TRAINING_PAPER,
         "nnUNetTrainerFinetune_FrozenEncoder",
         claims=TRAINED_ENCODER, changes=("Finetune", "Finetune<n>"), values={"frozen_encoder": True}),
    Part("ShallowEncoder<n>", Kind.FINE_TUNING, "",
         "modifies Finetune: of the encoder only the stem and the first n stages train", "",
         "nnUNetTrainerFinetune_ShallowEncoder2",
         claims=TRAINED_ENCODER, changes=("Finetune", "Finetune<n>"), attribute="shallow_stages"),
    Part("TrainedStem", Kind.FINE_TUNING, "",
         "modifies Finetune or LoRA: the encoder's first block trains in the decoder warm-up too",
         PRE_TRAINING_PAPER, "nnUNetTrainerFinetune_TrainedStem",
         changes=FINE_TUNING, values={"trained_stem": True}),
    Part("Cyclical", Kind.SCHEDULE, CYCLICAL,
         "three learning-rate cycles, posterior samples from each plateau; default 1200 epochs", CHECKPOINT_PAPER,
         "nnUNetTrainerCyclical", claims=SAMPLING),
    Part("Cyclical<M>", Kind.SCHEDULE, CYCLICAL,
         "Cyclical with M cycles instead of 3", CHECKPOINT_PAPER, "nnUNetTrainerCyclical5_500epochs",
         claims=SAMPLING, attribute="cycles"),
    Part("SWA", Kind.AVERAGING, "nnunet_ext.trainers.averaging.swa.SWA",
         "averages the weights over the last quarter of the epochs; writes checkpoint_swa.pth",
         "arXiv 1803.05407", "nnUNetTrainerSWA", claims=SAMPLING),
    Part("EMA", Kind.AVERAGING, "nnunet_ext.trainers.averaging.ema.EMA",
         "moving average of the weights over the iterations; writes checkpoint_ema.pth", "",
         "nnUNetTrainerEMA",
         claims=frozenset({Claim.EMA_CHECKPOINT})),
    Part("DSD", Kind.SUPERVISION, SELF_DISTILLATION,
         "dual self-distillation: one level teaches the others, in encoder and in decoder", DISTILLATION_PAPER,
         "nnUNetTrainerDSD_Cyclical", claims=TRAINING_OUTPUT, requires=UNET),
    Part("SDD", Kind.SUPERVISION, SELF_DISTILLATION,
         "DSD with distillation in the decoder only", DISTILLATION_PAPER, "nnUNetTrainerSDD",
         claims=TRAINING_OUTPUT, requires=UNET, values={"encoder_weight": 0.0}),
    Part("SDE", Kind.SUPERVISION, SELF_DISTILLATION,
         "DSD with distillation in the encoder only", DISTILLATION_PAPER, "nnUNetTrainerSDE",
         claims=TRAINING_OUTPUT, requires=UNET, values={"decoder_weight": 0.0}),
    Part("DS", Kind.SUPERVISION, SELF_DISTILLATION,
         "DSD without distillation: supervises every decoder level", DISTILLATION_PAPER, "nnUNetTrainerDS",
         claims=TRAINING_OUTPUT, requires=UNET, values={"encoder_weight": 0.0, "decoder_weight": 0.0}),
    Part("FullResolution", Kind.SUPERVISION, "",
         "modifies DSD, SDD, SDE or DS: heads at full resolution, as in the paper; more memory", DISTILLATION_PAPER,
         "nnUNetTrainerDSD_FullResolution_NoDeepSupervision",
         changes=SUPERVISING, values={"distillation_resolution": "full"}),
    Part("SumSupervision", Kind.SUPERVISION, "",
         "modifies DSD, SDD, SDE or DS: sums the levels' losses, as in the paper, not their mean", DISTILLATION_PAPER,
         "nnUNetTrainerDSD_SumSupervision", changes=SUPERVISING, values={"mean_supervision": False}),
    Part("Temperature<n>", Kind.SUPERVISION, "",
         "modifies DSD, SDD or SDE: distillation temperature n instead of 3", DISTILLATION_PAPER,
         "nnUNetTrainerDSD_Temperature2", changes=DISTILLING, attribute="temperature"),
    Part("AveragedTeacher", Kind.SUPERVISION, "",
         "modifies DSD, SDD or SDE (ablation): the mean over all levels is the teacher", DISTILLATION_PAPER,
         "nnUNetTrainerDSD_AveragedTeacher",
         claims=frozenset({Claim.TEACHER}), changes=DISTILLING, values={"teacher": "mean"}),
    Part("ReversedTeacher", Kind.SUPERVISION, "",
         "modifies DSD, SDD or SDE (ablation): first encoder level and bottleneck are teachers", DISTILLATION_PAPER,
         "nnUNetTrainerDSD_ReversedTeacher",
         claims=frozenset({Claim.TEACHER}), changes=DISTILLING, values={"teacher": "reversed"}),
    Part("FeatureL2", Kind.SUPERVISION, "",
         "modifies DSD (ablation): adds the squared distance of teacher and student features", DISTILLATION_PAPER,
         "nnUNetTrainerDSD_FeatureL2", changes=("DSD",), values={"vector_weight": 1e-4}),
    Part("RMSprop", Kind.SCHEDULE, "nnunet_ext.trainers.schedules.rmsprop.RMSprop",
         "RMSprop with linear warm-up and cosine decay, as in the Streaming paper's code", STREAMING_PAPER,
         "nnUNetTrainerStreaming_RMSprop", claims=frozenset({Claim.OPTIMIZER, Claim.LEARNING_RATE})),
    Part("Bagging", Kind.DATA, "nnunet_ext.trainers.data.bagging.Bagging",
         "trains on a bootstrap sample of the fold's training cases, a new one per member<k>",
         "Breiman 1996", "nnUNetTrainerBagging_member1", claims=frozenset({Claim.TRAINING_CASES})),
    Part("CaseWeights", Kind.DATA, "nnunet_ext.trainers.data.case_weights.CaseWeights",
         "sampling and loss weights per case, from case_weights.csv beside the plans", "",
         "nnUNetTrainerCaseWeights", requires=SEGMENTATION),
    Part("CarveMix", Kind.AUGMENTATION, "nnunet_ext.trainers.augmentation.carve_mix.CarveMix",
         "pastes lesions of another training case into half of the loaded images", "arXiv 2108.06883",
         "nnUNetTrainerCarveMix", requires=SEGMENTATION),
    Part("AdvChain", Kind.AUGMENTATION, "nnunet_ext.trainers.augmentation.adv_chain.AdvChain",
         "adds the consistency under adversarial image changes, about three times the cost", "Chen et al. 2022",
         "nnUNetTrainerAdvChain", claims=TRAINING_OUTPUT, requires=SEGMENTATION),
    Part("posterior<M>", Kind.NETWORK, "nnunet_ext.trainers.networks.posterior.Posterior",
         "M networks in one: the ensemble in checkpoint_posterior.pth, for the stock predictor", CHECKPOINT_PAPER,
         "nnUNetTrainer_posterior30", attribute="posterior_size", internal=True),
    Part("Streaming", Kind.NETWORK, STREAMING,
         "two networks trained end to end, weighted by their mean prediction over all slices", STREAMING_PAPER,
         "nnUNetTrainerStreaming", claims=TRAINING_OUTPUT, shares=NETWORK, lacks=ONE_NETWORK),
    Part("Streaming<K>", Kind.NETWORK, STREAMING,
         "Streaming with K networks instead of two", STREAMING_PAPER, "nnUNetTrainerStreaming3",
         claims=TRAINING_OUTPUT, shares=NETWORK, lacks=ONE_NETWORK, attribute="classifiers"),
    Part("StreamingFixed", Kind.NETWORK, STREAMING,
         "two networks trained end to end with equal weights", STREAMING_PAPER,
         "nnUNetTrainerStreamingFixed",
         claims=TRAINING_OUTPUT, shares=NETWORK, lacks=ONE_NETWORK, values={"weighting": "fixed"}),
    Part("StreamingFixed<K>", Kind.NETWORK, STREAMING,
         "StreamingFixed with K networks instead of two", STREAMING_PAPER, "nnUNetTrainerStreamingFixed3",
         claims=TRAINING_OUTPUT, shares=NETWORK, lacks=ONE_NETWORK, values={"weighting": "fixed"},
         attribute="classifiers"),
    Part("StreamingUNetD3P", Kind.NETWORK, STREAMING,
         "Streaming with the planned network and a DeepLabV3+", STREAMING_PAPER,
         "nnUNetTrainerStreamingUNetD3P",
         claims=frozenset({Claim.TRAINING_OUTPUT, Claim.NETWORK}), lacks=ONE_NETWORK,
         values={"networks": (PLANNED, DEEPLAB)}),
    Part("StreamingFixedUNetD3P", Kind.NETWORK, STREAMING,
         "the planned network and a DeepLabV3+ with weights 0.7 and 0.3, the paper's best", STREAMING_PAPER,
         "nnUNetTrainerStreamingFixedUNetD3P",
         claims=frozenset({Claim.TRAINING_OUTPUT, Claim.NETWORK}), lacks=ONE_NETWORK,
         values={"networks": (PLANNED, DEEPLAB), "weighting": "fixed", "fixed_weights": (0.7, 0.3)}),
    Part("PaperMixture", Kind.SUPERVISION, "",
         "modifies Streaming: second softmax on the mixed probabilities, as in the paper", STREAMING_PAPER,
         "nnUNetTrainerStreaming_PaperMixture",
         requires=frozenset({Requirement.LABELS}), changes=MIXTURES, values={"mixture": "paper"}),
    Part("MCDropout", Kind.NETWORK, "nnunet_ext.trainers.networks.mc_dropout.MCDropout",
         "dropout in the two deepest levels, for predict --members mc-dropout:10", "arXiv 1506.02142",
         "nnUNetTrainerMCDropout", claims=frozenset({Claim.DROPOUT}), requires=UNET),
    Part("DeepLab", Kind.NETWORK, DEEPLAB,
         "trains a DeepLabV3+ instead of the planned network", "arXiv 1802.02611", "nnUNetTrainerDeepLab",
         claims=NETWORK, lacks=UNET),
    Part("DiceFocal", Kind.LOSS, "nnunet_ext.trainers.losses.dice_focal.DiceFocal",
         "Dice plus 10 times focal loss instead of nnU-Net's loss", STREAMING_PAPER,
         "nnUNetTrainerStreaming_DiceFocal",
         claims=frozenset({Claim.LOSS})),
    Part("DiceFocalPaper", Kind.LOSS, "nnunet_ext.trainers.losses.dice_focal.DiceFocalPaper",
         "DiceFocal with the Dice of the released code, which lacks the factor 2", STREAMING_PAPER,
         "nnUNetTrainerStreaming_DiceFocalPaper", claims=frozenset({Claim.LOSS})),
    Part("RegionFocal", Kind.LOSS, "nnunet_ext.trainers.losses.region_focal.RegionFocal",
         "region-related focal loss, which weights structures by how little of them is found", "Li et al. 2023",
         "nnUNetTrainerRegionFocal", claims=frozenset({Claim.LOSS})),
    Part("Focal", Kind.LOSS, "nnunet_ext.trainers.losses.focal.Focal",
         "focal loss instead of Dice and cross-entropy",
         "arXiv 1708.02002", "nnUNetTrainerFocal", claims=frozenset({Claim.LOSS})),
    Part("Boundary", Kind.LOSS_TERM, "nnunet_ext.trainers.losses.boundary.Boundary",
         "boundary loss, 0 to 50 % of the loss between 30 and 60 % of the epochs",
         "arXiv 1812.07032",
         "nnUNetTrainerBoundary", claims=LOSS_SHARE, requires=SEGMENTATION),
    Part("BoundaryRebalance", Kind.LOSS_TERM, "nnunet_ext.trainers.losses.boundary.BoundaryRebalance",
         "boundary loss whose share of the loss rises by 1 % per epoch",
         "arXiv 1812.07032", "nnUNetTrainerBoundaryRebalance",
         claims=LOSS_SHARE, requires=SEGMENTATION),
    Part("HausdorffDT", Kind.LOSS_TERM, "nnunet_ext.trainers.losses.hausdorff_distance.HausdorffDT",
         "adds the Hausdorff loss from distance transforms, balanced with Dice",
         "arXiv 1904.10030", "nnUNetTrainerHausdorffDT",
         requires=SEGMENTATION),
    Part("HausdorffErosion", Kind.LOSS_TERM, "nnunet_ext.trainers.losses.hausdorff_erosion.HausdorffErosion",
         "adds the Hausdorff loss from erosions, balanced with Dice",
         "arXiv 1904.10030", "nnUNetTrainerHausdorffErosion",
         requires=SEGMENTATION),
    Part("HausdorffConv", Kind.LOSS_TERM, "nnunet_ext.trainers.losses.hausdorff_convolution.HausdorffConv",
         "adds the Hausdorff loss from convolutions with balls, balanced with Dice",
         "arXiv 1904.10030", "nnUNetTrainerHausdorffConv",
         requires=SEGMENTATION),
    Part("ClDice", Kind.LOSS_TERM, "nnunet_ext.trainers.losses.cldice.ClDice",
         "centre-line Dice for tubular structures, up to 50 % of the loss", "arXiv 2003.07311", "nnUNetTrainerClDice",
         claims=LOSS_SHARE, requires=SEGMENTATION),
    Part("SkeletonRecall", Kind.LOSS_TERM, "nnunet_ext.trainers.losses.skeleton_recall.SkeletonRecall",
         "adds the recall of the centre lines of tubular structures",
         "arXiv 2404.03010", "nnUNetTrainerSkeletonRecall",
         requires=SEGMENTATION),
    Part("Euler", Kind.LOSS_TERM, "nnunet_ext.trainers.losses.euler.Euler",
         "adds the error of the Euler characteristic late in training", "", "nnUNetTrainerEuler",
         requires=SEGMENTATION),
    Part("ACE", Kind.LOSS_TERM, "nnunet_ext.trainers.losses.marginal_calibration.ACE",
         "adds the marginal L1 average calibration error", "arXiv 2403.06759", "nnUNetTrainerACE",
         requires=SEGMENTATION),
)
# fmt: on

# Words of earlier versions, and their replacements.
RENAMED = {
    "DSDFull": "DSD_FullResolution",
    "DSDMeanTeacher": "DSD_AveragedTeacher",
    "DSDReversedTeacher": "DSD_ReversedTeacher",
    "DSDFeatureL2": "DSD_FeatureL2",
}
