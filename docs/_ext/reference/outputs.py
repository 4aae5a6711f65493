"""What the program writes: tables, maps and JSON files, from the tables and docstrings of the package."""

from __future__ import annotations

from nnunet_ext.calibration.model_calibration import Calibration
from nnunet_ext.commands.compare import COLUMNS as COMPARE_COLUMNS
from nnunet_ext.commands.evaluate import SUMMARY
from nnunet_ext.inference.accumulation.maps import MAP_FACTS
from nnunet_ext.options import EnsembleOptions
from nnunet_ext.prediction_folder.contents import COLUMNS, FILES, FLAGS
from nnunet_ext.prediction_folder.provenance import SETTINGS
from nnunet_ext.samples import Sample
from reference.docstrings import attributes_of
from reference.markdown import as_markdown, code, table


def folder_files() -> str:
    """The files of a prediction folder."""
    rows = [[code(file.name), as_markdown(file.when), as_markdown(file.content)] for file in FILES]
    return table(["file", "when", "content"], rows)


def compare_columns() -> str:
    """The columns of `compare.csv`."""
    rows = [[code(column), as_markdown(meaning)] for column, meaning in COMPARE_COLUMNS.items()]
    return table(["column", "meaning"], rows)


def case_table() -> str:
    """`cases.csv`: a row per column; the columns of a calibration are marked."""
    rows = [
        [
            code(column.name) + (" †" if column.calibrated else ""),
            as_markdown(column.values),
            as_markdown(column.meaning),
            as_markdown(column.empty),
        ]
        for column in COLUMNS
    ]
    return table(["column", "values", "meaning", "empty"], rows)


def case_flags() -> str:
    """The words of the column `flags`."""
    return table(["flag", "meaning"], [[code(flag), as_markdown(meaning)] for flag, meaning in FLAGS.items()])


def maps() -> str:
    """The maps with their formulas."""
    rows = [
        [code(name), f"${facts.formula}$", as_markdown(facts.values), facts.reads_as]
        for name, facts in MAP_FACTS.items()
    ]
    return table(["map", "formula", "values", "reads as"], rows)


def ensemble_record() -> str:
    """The options that `predict_args.json` records under `ensemble` and that must agree."""
    texts = attributes_of(EnsembleOptions)
    return table(["key", "what it is"], [[code(name), as_markdown(texts[name])] for name in SETTINGS])


def summary_keys() -> str:
    """What `evaluate` adds to nnU-Net's `summary.json`."""
    return table(["key", "content"], [[code(key), as_markdown(content)] for key, content in SUMMARY.items()])


def calibration_keys() -> str:
    """The keys of `calibration.json`."""
    return _keys_of(Calibration)


def sample_keys() -> str:
    """The keys of an entry of `samples.json`."""
    return _keys_of(Sample)


def _keys_of(documented: type) -> str:
    rows = [[code(name), as_markdown(text)] for name, text in attributes_of(documented).items()]
    return table(["key", "content"], rows)
