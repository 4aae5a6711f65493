"""The files that pages are made from: templates with escaping, style and scripts."""

from __future__ import annotations

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, Template


def template_of(name: str) -> Template:
    """A template of this package; a variable that is not given is an error."""
    return _environment().get_template(name)


def source_of(name: str) -> str:
    """A file as it is."""
    environment = _environment()
    return environment.loader.get_source(environment, name)[0]  # type: ignore[union-attr]


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("nnunet_ext", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
