"""`nnunet_ext serve`."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from nnunet_ext.cli.calibrated_flag import add_calibrated_flag, chosen_calibration
from nnunet_ext.cli.command import Command
from nnunet_ext.cli.ensemble_flags import add_ensemble_flags, ensemble_options
from nnunet_ext.cli.maps_flag import add_maps_flag, requested_maps
from nnunet_ext.cli.model_flags import model_choice
from nnunet_ext.cli.postprocess_flag import add_postprocess_flag, chosen_postprocessing
from nnunet_ext.options import OutputOptions, ServeOptions, ServerLimits

BYTES_PER_MB = 1_000_000


def serve_flags(parser: argparse.ArgumentParser) -> None:
    network = parser.add_argument_group("network")
    network.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    network.add_argument("--port", type=int, default=8000, help="port to listen on (default: 8000)")
    network.add_argument(
        "--token-file",
        metavar="FILE",
        help="file with the token that requests must send, 16 characters or more; required unless the host is this "
        "computer itself (default: none)",
    )

    limits = parser.add_argument_group("limits")
    limits.add_argument(
        "--max-upload", type=float, default=1000, metavar="MB", help="largest upload, in 10^6 bytes (default: 1000)"
    )
    limits.add_argument(
        "--max-voxels",
        type=int,
        default=ServerLimits.voxels,
        metavar="N",
        help="most voxels of an image, as its header says and at the network's spacing (default: 300000000)",
    )
    limits.add_argument(
        "--timeout",
        type=float,
        default=ServerLimits.seconds,
        metavar="SECONDS",
        help="longest upload, and longest prediction, whose worker is then replaced (default: 600)",
    )
    limits.add_argument(
        "--queue",
        type=int,
        default=ServerLimits.waiting,
        metavar="N",
        help="requests that may wait while one is predicted; others are turned away (default: 4)",
    )

    add_ensemble_flags(parser)
    add_postprocess_flag(parser)
    add_calibrated_flag(parser, "a verdict for every case")
    add_maps_flag(parser, "uncertainty maps to send")
    parser.add_argument("--verbose", action="store_true", help="more messages while running")


def serve(arguments: argparse.Namespace) -> int:
    from nnunet_ext.commands.serve import serve_model

    options = serve_options(arguments)

    def say_ready(model: dict[str, Any]) -> None:
        print(f"{', '.join(model['models'])}: {model['members']} members per case, on {model['device']}")
        print(f"listening on http://{options.host}:{options.port}; Ctrl-C ends it", flush=True)

    serve_model(options, say_ready)
    return 0


def serve_options(arguments: argparse.Namespace) -> ServeOptions:
    """The flags as options.

    Raises:
        ValueError: if flags contradict each other, or the token is missing or too short.
        OSError: if the file with the token cannot be read.
    """
    if arguments.prev_stage_predictions:
        raise ValueError("The server takes images only; found -prev_stage_predictions. Use nnunet_ext predict.")
    ensemble = replace(ensemble_options(arguments), postprocess=chosen_postprocessing(arguments), allow_tqdm=False)
    return ServeOptions(
        model=model_choice(arguments),
        ensemble=ensemble,
        output=OutputOptions(maps=requested_maps(arguments.maps)),
        calibration=chosen_calibration(arguments),
        host=arguments.host,
        port=arguments.port,
        token=Path(arguments.token_file).read_text(encoding="utf-8").strip() if arguments.token_file else None,
        limits=ServerLimits(
            upload_bytes=int(arguments.max_upload * BYTES_PER_MB),
            voxels=arguments.max_voxels,
            seconds=arguments.timeout,
            waiting=arguments.queue,
        ),
    )


COMMAND = Command(
    "serve",
    "keep a model loaded and predict what is sent to it by HTTP",
    serve_flags,
    serve,
    """example:
  $ nnunet_ext serve -m nnUNet_results/Dataset123_Heart/nnUNetTrainer__nnUNetPlans__2d --calibrated
  nnUNetTrainer__nnUNetPlans__2d: 5 members per case, on cpu
  listening on http://127.0.0.1:8000; Ctrl-C ends it
  $ curl -F 0000=@heart_0000.nii.gz -o result.zip http://127.0.0.1:8000/predict
  $ unzip -l result.zip
  case.nii.gz  maps/entropy/case.nii.gz  row.json""",
    how_to_go_on=lambda _: "Nothing is left over from the requests.",
)
