"""`nnunet_ext doctor`."""

from __future__ import annotations

import argparse

from nnunet_ext.cli.command import Command, no_flags


def doctor(arguments: argparse.Namespace) -> int:
    from nnunet_ext.doctor import examine

    findings = examine()
    for finding in findings:
        print(finding)
    return 1 if any(finding.remedy for finding in findings) else 0


COMMAND = Command(
    "doctor",
    "check versions, folders, devices and trainers, and say how to fix what is wrong",
    no_flags,
    doctor,
    """example:
  $ nnunet_ext doctor
  ok       nnunetv2             2.8.1
  ...
  problem  nnUNet_raw           is not set
                                -> set nnUNet_raw to the folder with your DatasetXXX_NAME folders""",
    status_1="it found a problem",
)
