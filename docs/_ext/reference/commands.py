"""The subcommands, read off the parsers that read the command line."""

from __future__ import annotations

import argparse

from nnunet_ext.cli import COMMANDS, build_parser
from nnunet_ext.cli.command import EXIT_STATUSES, Command
from reference.markdown import as_markdown, code, table

OPTIONAL_GROUPS = ("options", "optional arguments", "positional arguments")  # argparse's own titles


def subparsers() -> dict[str, argparse.ArgumentParser]:
    """Name to parser of every subcommand."""
    (action,) = (action for action in build_parser()._actions if isinstance(action, argparse._SubParsersAction))
    return dict(action.choices)


def overview() -> str:
    """A row for each subcommand, with a link to its section."""
    rows = [[f"[`{command.name}`](#{command.name})", as_markdown(command.summary)] for command in COMMANDS]
    return table(["command", "what it does"], rows)


def exit_statuses() -> str:
    """What the exit statuses of all commands mean, and what status 1 means of one."""
    rows = [[str(status), as_markdown(meaning)] for status, meaning in EXIT_STATUSES.items()]
    own = [[code(command.name), as_markdown(command.status_1)] for command in COMMANDS if command.status_1]
    return "\n\n".join([table(["status", "meaning"], rows), table(["command", "status 1 as well if"], own)])


def command_section(name: str) -> str:
    """A subcommand: what it does, its example, its flags by group."""
    command = next(command for command in COMMANDS if command.name == name)
    parser = subparsers()[name]
    parts = [
        as_markdown(f"{command.summary[0].upper()}{command.summary[1:]}."),
        example(command),
        *flags_by_group(parser),
    ]
    for action, inner in actions_of(parser).items():
        parts += [f"### {name} {action}", as_markdown(inner.description or ""), *flags_by_group(inner)]
    return "\n\n".join(part for part in parts if part)


def actions_of(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Name to parser of what a subcommand does, where it does several things."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def flags_by_group(parser: argparse.ArgumentParser) -> list[str]:
    """A table of flags for each group, after its title and description."""
    parts = []
    for group in parser._action_groups:
        actions = [action for action in group._group_actions if not isinstance(action, argparse._HelpAction)]
        if actions:
            title = "" if group.title in OPTIONAL_GROUPS else f"**{group.title[0].upper()}{group.title[1:]}**"
            parts += [title, as_markdown(group.description or ""), flag_table(actions)]
    return parts


def example(command: Command) -> str:
    """The example of the help, without its indentation."""
    lines = [line.removeprefix("  ") for line in command.example.splitlines() if line != "example:"]
    return "\n".join(["```text", *lines, "```"])


def flag_table(actions: list[argparse.Action]) -> str:
    """A row for each flag or positional argument."""
    return table(["flag", "default", "meaning"], [[spelling(action), *meaning(action)] for action in actions])


def spelling(action: argparse.Action) -> str:
    """All spellings of a flag, with the names of its values."""
    value = metavar(action)
    if not action.option_strings:
        return code(value)
    first, *others = action.option_strings
    return ", ".join([code(f"{first} {value}".strip()), *map(code, others)])


def metavar(action: argparse.Action) -> str:
    """What stands for the values of a flag, as argparse's usage has it; "" if it takes none."""
    if action.nargs == 0:
        return ""
    names = action.metavar or ("|".join(map(str, action.choices)) if action.choices else action.dest.upper())
    if isinstance(names, tuple):
        return f"{names[0]} {names[1]} [{names[1]} ...]"
    forms = {argparse.PARSER: "{0}", None: "{0}", "?": "[{0}]", "*": "[{0} ...]", "+": "{0} [{0} ...]"}
    return forms[action.nargs].format(names)


def meaning(action: argparse.Action) -> tuple[str, str]:
    """The default of a flag, and what it does.

    Many help texts name the default at their end, in words: it goes into its own column.
    """
    text, _, said = (action.help or "").partition(" (default: ")
    after = said.partition(")")[2]
    if said and not after.strip():
        default = said.removesuffix(")")
        return as_markdown(default) if " " in default else code(default), as_markdown(text)
    return default_of(action), as_markdown(action.help or "")


def default_of(action: argparse.Action) -> str:
    """The default in the parser; "required" where one has to be given."""
    if action.required or (not action.option_strings and action.nargs not in ("?", "*")):
        return "required"
    if action.nargs == 0:
        return "off"
    if action.default in (None, (), []):
        return "none"
    values = action.default if isinstance(action.default, (list, tuple)) else [action.default]
    return " ".join(code(str(value)) for value in values)
