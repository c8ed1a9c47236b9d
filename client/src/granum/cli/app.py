"""The command `granum` put together: its groups, and what an error means for the exit status.

0 ok, 1 failed, 2 usage, 3 partial (a known node did not answer). Errors of granum and of the operating system are one line
on standard error.
"""

import signal
import sys

import click

from granum import __version__
from granum.cli.bench import bench
from granum.cli.cat import cat
from granum.cli.completion import completion
from granum.cli.copy import cp, get, mkdir, put, sync
from granum.cli.doctor import doctor
from granum.cli.du import du
from granum.cli.find import find
from granum.cli.look import locate, ls, stat, tree
from granum.cli.nodes import nodes
from granum.cli.options import Section, shared_options
from granum.cli.output import remark
from granum.cli.overflow import overflow
from granum.cli.series import series
from granum.cli.serve import serve
from granum.cli.session import EXIT_FAILED, EXIT_PARTIAL
from granum.cli.settings import config
from granum.cli.top import top
from granum.wire.errors import BadConfig, BadLocator, BadPath, GranumError, NodeUnreachable, Partial

EXIT_USAGE = 2
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells have it


def exit_status(error: GranumError) -> int:
    """Return the exit status that *error* means."""
    if isinstance(error, BadPath | BadLocator | BadConfig):
        return EXIT_USAGE
    return EXIT_PARTIAL if isinstance(error, Partial | NodeUnreachable) else EXIT_FAILED


class Granum(Section):
    """The command itself: ends in an exit status, whatever happens in a command."""

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; turn errors that users can do something about into a line and a status."""
        try:
            return super().invoke(ctx)
        except GranumError as error:
            remark(str(error))
            raise click.exceptions.Exit(exit_status(error)) from error
        except KeyboardInterrupt:
            raise click.exceptions.Exit(EXIT_INTERRUPTED) from None
        except BrokenPipeError:  # the reader of the output went away; click ends quietly
            raise
        except OSError as error:
            remark(f"{error.filename}: {error.strerror}" if error.filename else str(error))
            raise click.exceptions.Exit(EXIT_FAILED) from error


@click.group(
    cls=Granum,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    example="granum -c lab ls -l /2026-10-01",
)
@shared_options
@click.version_option(__version__, message="granum %(version)s")
def app() -> None:
    """Storage for microscopy labs: many plain disks, seen as one tree.

    PATH is a cluster path, '/2026-10-01/run1', or a locator, 'granum://lab/2026-10-01/run1'; the cluster that a locator
    names wins over --cluster. 'granum COMMAND --help' explains a command. A setting that is not given is taken from
    GRANUM_CLUSTER, GRANUM_NODES ... in the environment, or from the configuration ('granum config show --origin').

    Exit status: 0 ok, 1 failed, 2 usage, 3 partial: a known node did not answer.
    """


app.headings = {
    "Look": ("nodes", "top", "doctor", "ls", "tree", "find", "du", "stat", "locate", "cat"),
    "Copy": ("put", "get", "cp", "sync", "mkdir", "series"),
    "This machine": ("serve", "bench", "overflow", "config", "completion"),
}
_LOOK = (nodes, top, doctor, ls, tree, find, du, stat, locate, cat)
for command in (*_LOOK, put, get, cp, sync, mkdir, series, serve, bench, overflow, config, completion):
    app.add_command(command)


def main() -> None:
    """Run the command line; does not return."""
    # As an exception, so that whatever is open is closed and nothing half-written stays.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        app(prog_name="granum")
    except KeyboardInterrupt:  # outside of a command
        sys.exit(EXIT_INTERRUPTED)
