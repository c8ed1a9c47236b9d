"""`granum config`: the settings in force, and where each comes from."""

from typing import Any

import click

from granum.cli.options import Choices, Section, pass_choices
from granum.cli.output import print_json, print_table


@click.group(cls=Section)
def config() -> None:
    """Show the configuration."""


@config.command(example="granum config show --origin")
@click.option("--origin", "is_origin", is_flag=True, help="Also where each value comes from.")
@pass_choices
def show(choices: Choices, *, is_origin: bool) -> None:
    """Show every setting of the client with its value.

    The first that says something wins: the command line, GRANUM_... in the environment, ~/.config/granum/config.yaml,
    /etc/granum/*.yaml, and PYME's own configuration files.
    """
    from granum.config import load  # noqa: PLC0415 - reads YAML, which --help need not know of

    found = load({"cluster": choices.cluster, "nodes": choices.nodes or None})
    rows = [{"key": key, "value": getattr(found, key), "origin": origin} for key, origin in found.origins.items()]
    if choices.json:
        print_json([row if is_origin else {"key": row["key"], "value": row["value"]} for row in rows])
        return
    head = ("SETTING", "VALUE", "ORIGIN")[: 3 if is_origin else 2]
    print_table(head, [(row["key"], _text(row["value"]), row["origin"])[: len(head)] for row in rows])


def _text(value: Any) -> str:
    return (", ".join(value) if isinstance(value, tuple | list) else str(value)) or "-"
