"""Options: what every command takes, before or after its name: 'granum -c lab ls /' and 'granum ls / -c lab' are one.

They are collected in `Choices`, which travels as the object of click's context. Options that only make sense with a cluster
are left out of commands that ask none.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any  # click's values and decorators

import click

_CLUSTER = ("cluster", "nodes", "discovery", "expect")


@dataclass(slots=True)
class Choices:
    """What was chosen for the whole command; None where nothing was. *expect* is how many nodes there are to be."""

    cluster: str | None = None
    nodes: tuple[str, ...] = ()
    discovery: bool = True
    expect: int | None = None
    json: bool = False
    quiet: bool = False


pass_choices = click.make_pass_decorator(Choices, ensure=True)


def _note(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    """Keep *value*; what was said after the command's name wins, nodes are added up."""
    if ctx.get_parameter_source(param.name or "") is click.core.ParameterSource.DEFAULT:
        return
    choices = ctx.ensure_object(Choices)
    is_environment = ctx.get_parameter_source(param.name or "") is click.core.ParameterSource.ENVIRONMENT
    if is_environment and getattr(choices, param.name or "") is not None:  # said before the command's name
        return
    if param.name == "nodes":
        choices.nodes = (*choices.nodes, *value)
    else:
        setattr(choices, param.name or "", value)


def _shared() -> list[click.Option]:
    def option(*names: str, **settings: Any) -> click.Option:
        return click.Option(names, expose_value=False, callback=_note, **settings)

    return [
        option("-c", "--cluster", "cluster", metavar="NAME", help="The cluster.  [default: any that is found]"),
        option(
            "-n",
            "--node",
            "nodes",
            metavar="HOST:PORT",
            multiple=True,
            help="A node that is there, whether found or not; may be repeated.",
        ),
        option(
            "--no-discovery",
            "discovery",
            flag_value=False,
            is_flag=True,
            default=True,
            help="Look for no nodes but those of --node.",
        ),
        option(
            "--wait",
            "expect",
            type=click.IntRange(min=1),
            metavar="N",
            envvar="GRANUM_WAIT",
            help="Begin once N nodes are found, and not later; or set GRANUM_WAIT.",
        ),
        option("--json", "json", is_flag=True, help="Print one JSON document."),
        option("-q", "--quiet", "quiet", is_flag=True, help="Print no progress and no confirmation."),
    ]


class Command(click.Command):
    """A command with the shared options, and one example in its help. *alone*: it asks no cluster."""

    def __init__(self, *args: Any, example: str = "", alone: bool = False, **kwargs: Any) -> None:
        """Take click's arguments, and *example*, a command line without its prompt."""
        super().__init__(*args, **kwargs)
        self._example = example
        self._own = tuple(self.params)
        self.params = [*self.params, *(option for option in _shared() if not alone or option.name not in _CLUSTER)]

    def format_epilog(self, _: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the example."""
        write_example(formatter, self._example)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the command's own options first, then the shared ones."""
        write_options(ctx, formatter, "Options", self._own)
        shared = [param for param in self.get_params(ctx) if param not in self._own]
        write_options(ctx, formatter, "Options of every command", shared)


class Section(click.Group):
    """A group of commands, shown under headings; its commands are `Command`s, its groups `Section`s."""

    command_class = Command
    group_class = type

    def __init__(self, *args: Any, example: str = "", **kwargs: Any) -> None:
        """Take click's arguments, and *example* as a `Command` does."""
        super().__init__(*args, **kwargs)
        self._example = example
        self.headings: dict[str, Sequence[str]] = {}

    def format_epilog(self, _: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the example."""
        write_example(formatter, self._example)

    def list_commands(self, _: click.Context) -> list[str]:
        """Return the names in the order in which the commands were added."""
        return list(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands under their headings."""
        for heading, names in (self.headings or {"Commands": self.list_commands(ctx)}).items():
            with formatter.section(heading):
                formatter.write_dl([(name, self.commands[name].get_short_help_str(limit=90)) for name in names])


def write_options(
    ctx: click.Context, formatter: click.HelpFormatter, heading: str, params: Sequence[click.Parameter]
) -> None:
    """Write the help of *params* under *heading*; nothing when there are none."""
    found = [param.get_help_record(ctx) for param in params if isinstance(param, click.Option)]
    records = [record for record in found if record is not None]
    if records:
        with formatter.section(heading):
            formatter.write_dl(records)


def write_example(formatter: click.HelpFormatter, example: str) -> None:
    """Write *example* under a heading."""
    if example:
        with formatter.section("Example"):
            formatter.write_text(example)


def shared_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a group the shared options, so that they may stand before the command's name."""
    existing = getattr(command, "__click_params__", [])
    command.__click_params__ = [*existing, *reversed(_shared())]  # type: ignore[attr-defined]  # click's own way
    return command
