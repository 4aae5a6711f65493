"""The command `nnunet_ext`: argument parsing only. Each subcommand has a file with its flags and the call it makes.

Heavy modules are imported inside the functions that need them, so that help is shown at once.
"""

from __future__ import annotations

import argparse
import difflib
import io
import logging
import sys
from collections.abc import Sequence

import nnunet_ext
from nnunet_ext.cli import (
    calibrate,
    check,
    compare,
    demo,
    doctor,
    env,
    error_map,
    evaluate,
    export,
    models,
    postprocess,
    predict,
    preprocess_unlabelled,
    pretrain,
    pseudo_label,
    report,
    select,
    serve,
    splits,
    teach,
    train,
    trainers,
    weights,
)
from nnunet_ext.cli.command import INTERRUPTED
from nnunet_ext.cli.flag_parser import FlagParser
from nnunet_ext.error_text import in_words
from nnunet_ext.nnunet_versions import installed_version, remark_on

COMMANDS = tuple(
    module.COMMAND
    for module in (
        env,
        doctor,
        trainers,
        check,
        splits,
        train,
        pretrain,
        preprocess_unlabelled,
        models,
        postprocess,
        calibrate,
        weights,
        teach,
        pseudo_label,
        predict,
        serve,
        evaluate,
        compare,
        error_map,
        report,
        select,
        export,
        demo,
    )
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit status, 0 only if everything asked for was done."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # paths may contain what a Windows console cannot print
            stream.reconfigure(errors="backslashreplace")
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    if arguments[:1] == ["train"]:  # all flags are nnUNetv2_train's own
        return train.train(arguments[1:])
    parser = build_parser()
    names = [command.name for command in COMMANDS]
    if arguments and not arguments[0].startswith("-") and arguments[0] not in names:
        close = difflib.get_close_matches(arguments[0].lower(), names, n=2)
        hint = f" Did you mean {' or '.join(close)}?" if close else ""
        parser.error(f"there is no command {arguments[0]!r}.{hint} Commands: {', '.join(names)}")
    parsed = parser.parse_args(arguments)
    if getattr(parsed, "verbose", False):
        logging.getLogger("nnunet_ext").setLevel(logging.INFO)
    if remark := remark_on(installed_version()):
        logging.getLogger(__name__).warning("nnU-Net %s: %s", installed_version(), remark)
    try:
        return parsed.run(parsed)
    except KeyboardInterrupt:
        print(f"\nnnunet_ext {parsed.command}: interrupted. {parsed.how_to_go_on(parsed)}", file=sys.stderr)
        return INTERRUPTED
    except (OSError, ValueError, RuntimeError) as error:
        print(f"nnunet_ext {parsed.command}: {str(error) or in_words(error)}", file=sys.stderr)
        return 1


def build_parser() -> argparse.ArgumentParser:
    """The parser of `nnunet_ext` with all its subcommands."""
    parser = FlagParser(
        prog="nnunet_ext",
        description="Uncertainty, checkpoint ensembles and new trainers for nnU-Net v2.",
        epilog="nnunet_ext COMMAND --help shows its flags and an example.",
    )
    parser.add_argument("--version", action="version", version=f"nnunet_ext {nnunet_ext.__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS:
        subparser = subparsers.add_parser(
            command.name,
            help=command.summary,
            description=command.summary[0].upper() + command.summary[1:] + ".",
            epilog=command.example,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_flags(subparser)
        subparser.set_defaults(run=command.run, how_to_go_on=command.how_to_go_on)
    return parser
