"""The module that nnU-Net imports by its bare name and asks for a trainer class."""

from __future__ import annotations

from nnunet_ext.discovery import offer_to_nnunet


def __getattr__(name: str) -> type:
    return offer_to_nnunet(name)
