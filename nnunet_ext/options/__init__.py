"""The options of every command as frozen objects: defaults, choices and validation, each defined once.

The command line turns its flags into one of these, `commands/` takes it, and so do notebooks. Neither torch
nor nnU-Net is imported, so that help texts and parsers can read the choices.
"""

from __future__ import annotations

from nnunet_ext.options.adaptation import AdaptOptions
from nnunet_ext.options.calibration import (
    AUTOMATIC,
    TEMPERATURES,
    CalibrateOptions,
    FitOptions,
    SplitOptions,
    TemperatureKind,
)
from nnunet_ext.options.choices import (
    require_choice,
    require_share,
)
from nnunet_ext.options.deployment import (
    NETWORK_FORMATS,
    NETWORK_PRECISIONS,
    DeployOptions,
    NetworkFormat,
    NetworkPrecision,
)
from nnunet_ext.options.error_map import (
    ErrorApplyOptions,
    ErrorDatasetOptions,
    ErrorFitOptions,
)
from nnunet_ext.options.evaluation import (
    ABSENT_RULES,
    END_STACKS,
    END_VARIANTS,
    AbsentRule,
    CompareOptions,
    DatasetFiles,
    EndStack,
    EndVariant,
    EvaluationOptions,
    JudgeOptions,
    MetricOptions,
    ReportOptions,
)
from nnunet_ext.options.models import (
    CheckOptions,
    ModelChoice,
    PlainCopyOptions,
)
from nnunet_ext.options.postprocessing import (
    OPERATION_NAMES,
    OperationName,
    PostprocessOptions,
)
from nnunet_ext.options.prediction import (
    AVERAGES,
    DEVICES,
    EARLY_EXITS,
    MAP_NAMES,
    MAP_TYPES,
    MEMORY,
    MEMORY_MAPS,
    PRECISIONS,
    RECORDED_AS,
    RUNTIME_NAMES,
    TTA_SETS,
    Average,
    EarlyExit,
    EnsembleOptions,
    MapName,
    MapType,
    OutputOptions,
    Precision,
    PredictOptions,
    RuntimeName,
    TestTimeTransforms,
    recorded,
)
from nnunet_ext.options.pretraining import (
    PRESETS,
    FixedPlans,
    PretrainOptions,
    ScanFilter,
)
from nnunet_ext.options.pseudo_labels import PseudoLabelOptions
from nnunet_ext.options.selection import (
    SELECTED_BY,
    STRATEGY_NAMES,
    UNIT_KINDS,
    ScoreOptions,
    SelectedBy,
    SelectOptions,
    SimulateOptions,
    StrategyName,
    StrategyOptions,
    UnitKind,
)
from nnunet_ext.options.serving import ServeOptions, ServerLimits
from nnunet_ext.options.teaching import TeachOptions
from nnunet_ext.options.trainers import TrainerCostOptions
from nnunet_ext.options.unlabelled import UnlabelledOptions
from nnunet_ext.options.weights import WeightsOptions

__all__ = [
    "ABSENT_RULES",
    "AUTOMATIC",
    "AVERAGES",
    "DEVICES",
    "EARLY_EXITS",
    "END_STACKS",
    "END_VARIANTS",
    "MAP_NAMES",
    "MAP_TYPES",
    "MEMORY",
    "MEMORY_MAPS",
    "NETWORK_FORMATS",
    "NETWORK_PRECISIONS",
    "OPERATION_NAMES",
    "PRECISIONS",
    "PRESETS",
    "RECORDED_AS",
    "RUNTIME_NAMES",
    "SELECTED_BY",
    "STRATEGY_NAMES",
    "TEMPERATURES",
    "TTA_SETS",
    "UNIT_KINDS",
    "AbsentRule",
    "AdaptOptions",
    "Average",
    "CalibrateOptions",
    "CheckOptions",
    "CompareOptions",
    "DatasetFiles",
    "DeployOptions",
    "EarlyExit",
    "EndStack",
    "EndVariant",
    "EnsembleOptions",
    "ErrorApplyOptions",
    "ErrorDatasetOptions",
    "ErrorFitOptions",
    "EvaluationOptions",
    "FitOptions",
    "FixedPlans",
    "JudgeOptions",
    "MapName",
    "MapType",
    "MetricOptions",
    "ModelChoice",
    "NetworkFormat",
    "NetworkPrecision",
    "OperationName",
    "OutputOptions",
    "PlainCopyOptions",
    "PostprocessOptions",
    "Precision",
    "PredictOptions",
    "PretrainOptions",
    "PseudoLabelOptions",
    "ReportOptions",
    "RuntimeName",
    "ScanFilter",
    "ScoreOptions",
    "SelectOptions",
    "SelectedBy",
    "ServeOptions",
    "ServerLimits",
    "SimulateOptions",
    "SplitOptions",
    "StrategyName",
    "StrategyOptions",
    "TeachOptions",
    "TemperatureKind",
    "TestTimeTransforms",
    "TrainerCostOptions",
    "UnitKind",
    "UnlabelledOptions",
    "WeightsOptions",
    "recorded",
    "require_choice",
    "require_share",
]
