"""`granum put`, `get`, `cp`, `sync`, `mkdir`: whole files and directories, to clusters, from them and between them.

What is copied where is planned before the first byte moves, several files travel at a time, and a copy that was interrupted
resumes when it is run again: what is there already is compared, not copied. One file that fails is reported and the others
go on; the exit status then says so.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import click

from granum.cli.carry import Carrier, Way, receipt_row
from granum.cli.cat import write_files
from granum.cli.ends import ClusterEnd, End, LocalEnd, Spot
from granum.cli.options import Choices, Command, pass_choices
from granum.cli.output import JsonArray, print_json, say
from granum.cli.place import Place, to_place
from granum.cli.plan import Copy, goes_below, planned
from granum.cli.progress import Bar, is_wanted
from granum.cli.session import Account, opened
from granum.cli.tally import Tally
from granum.wire.locator import is_locator

STDOUT = "-"
ONLY_LOOK = Way(writes=False)
CHECK = Way(writes=False, deep=True)

Named: TypeAlias = str | Place  # on this machine, or in a cluster
F = TypeVar("F", bound=Callable[..., Any])  # Any: commands take different options


def verbosely(command: F) -> F:
    """Give a command the option to name every file."""
    return click.option("-v", "--verbose", is_flag=True, help="Print a line for each file, instead of a bar.")(command)


@click.command(cls=Command, example="granum put run1.tif notes /2026-10-01/")
@click.argument("sources", metavar="LOCAL...", nargs=-1, required=True, type=click.Path(exists=True))
@click.argument("place", metavar="REMOTE", callback=to_place)
@verbosely
@pass_choices
def put(choices: Choices, sources: Sequence[str], place: Place, *, verbose: bool) -> None:
    """Store local files and directories in the cluster.

    REMOTE is the name of the copy. When it ends in '/', or several LOCAL are given, or it is a directory and LOCAL is a
    file, the copies go below it under their own names. A directory is copied with all that is in it, into the one of that
    name if there is one. What is stored already never changes: equal files are passed over, so that an interrupted copy
    resumes when it is repeated, and different ones are errors.
    """
    with _trip(choices, sources, place) as trip:
        _copy(trip, "put", "put", Way(), verbose=verbose)


@click.command(cls=Command, example="granum get /2026-10-01/run1.tif /2026-10-01/notes .")
@click.argument("places", metavar="REMOTE...", nargs=-1, required=True, callback=to_place)
@click.argument("target", metavar="LOCAL", type=click.Path())
@click.option("--force", is_flag=True, help="Replace local files of the same name.")
@verbosely
@pass_choices
def get(choices: Choices, places: Sequence[Place], target: str, *, force: bool, verbose: bool) -> None:
    """Fetch files and directories from the cluster.

    LOCAL is the name of the copy. When it ends in '/', is '.', or several REMOTE are given, or it is a directory and REMOTE
    is a file, the copies go below it under their own names. '-' writes one file to standard output. A local file is there
    whole or not at all; equal ones are passed over, different ones are errors.
    """
    if target == STDOUT:
        if len(places) > 1 or choices.json:
            raise click.UsageError(
                "'-' takes one file, and --json has no room for it; for several there is 'granum cat'"
            )
        with opened(choices, places) as session:
            write_files(session, [places[0].path])
        return
    with _trip(choices, places, target) as trip:
        _copy(trip, "get", "got", Way(force=force, hint="--force replaces it"), verbose=verbose)


@click.command(cls=Command, example="granum cp granum://lab/2026-10-01/run1.pcs granum://archive/2026/")
@click.argument("sources", metavar="SRC...", nargs=-1, required=True)
@click.argument("target", metavar="DST")
@verbosely
@pass_choices
def cp(choices: Choices, sources: Sequence[str], target: str, *, verbose: bool) -> None:
    """Copy files and directories to a cluster, from one, or from one to another.

    What lies in a cluster is written as a locator, 'granum://lab/2026-10-01', or 'granum:///2026-10-01' for the cluster of -c;
    all else is on this machine. Where the copies go is as 'granum put' has it. Nothing is ever overwritten: equal files are
    passed over, so that an interrupted copy resumes when it is repeated, and different ones are errors.
    """
    with _trip(choices, [_named(source) for source in sources], _named(target)) as trip:
        _copy(trip, "cp", "copied", Way(), verbose=verbose)


@click.command(cls=Command, example="granum sync --dry-run ~/acquired granum://lab/2026-10-01")
@click.argument("source", metavar="SRC")
@click.argument("target", metavar="DST")
@click.option("--dry-run", is_flag=True, help="Print what would be copied and what differs; copy nothing.")
@click.option("--check", is_flag=True, help="Print how the trees differ, byte for byte; copy nothing.")
@verbosely
@pass_choices
def sync(choices: Choices, source: str, target: str, *, dry_run: bool, check: bool, verbose: bool) -> None:
    """Copy what directory SRC has and directory DST has not; say what differs.

    SRC and DST are written as for 'granum cp'. Nothing is ever deleted or overwritten. The exit status is 1 when files
    differ; with --check, also when they are on one side only.

    \b
    new      is at SRC only
    differs  has other bytes at DST, or is a directory on one side
    extra    is at DST only (told with --check)
    """  # noqa: D301 - \b is click's mark for text that is not to be wrapped
    with _trip(choices, [_named(source)], _named(target)) as trip:
        found = trip.source.look(trip.tops[0])
        if found is not None and not found.is_directory:
            raise click.UsageError(f"{source} is a file; copy it with 'granum cp'")
        way = CHECK if check else ONLY_LOOK if dry_run else Way()
        _copy(trip, "sync", "copied", way, verbose=verbose, is_tree=True)


@click.command(cls=Command, example="granum mkdir /2026-10-01")
@click.argument("place", metavar="PATH", callback=to_place)
@pass_choices
def mkdir(choices: Choices, place: Place) -> None:
    """Make a directory, with those above it."""
    with opened(choices, [place], writes=True) as session:
        receipt = session.cluster.mkdir(place.path)
        if choices.json:
            print_json(receipt_row(receipt))
        elif not choices.quiet:
            say(f"made {receipt.path} on {receipt.node.name}")


# -- what they share -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Trip:
    """From which end to which, what, and where to; *slash* says that the copies go below *into*."""

    choices: Choices
    account: Account
    source: End
    target: End
    tops: Sequence[Spot]
    into: Spot
    slash: bool


@contextmanager
def _trip(choices: Choices, sources: Sequence[Named], target: Named) -> Iterator[Trip]:
    """Open the clusters that are named; on leaving, close them and end the command with its status."""
    places = [source for source in sources if isinstance(source, Place)]
    if places and len(places) < len(sources):
        raise click.UsageError(
            "one copy takes what is on this machine, or what is in a cluster; copy them one after the other"
        )
    if not places and not isinstance(target, Place):
        raise click.UsageError("both ends are on this machine; write granum://CLUSTER/path for what is in a cluster")
    account = Account(choices)
    with ExitStack() as stack:
        ends: dict[str | None, End] = {}

        def end_at(named: Sequence[Place], *, writes: bool) -> End:
            if not named:
                return LocalEnd(account)
            name = named[0].cluster or choices.cluster
            if name not in ends:
                session = opened(choices, named, writes=writes, account=account)
                ends[name] = ClusterEnd(stack.enter_context(session))
            return ends[name]

        target_end = end_at([target] if isinstance(target, Place) else [], writes=True)
        source_end = end_at(places, writes=False)
        tops = [source.path if isinstance(source, Place) else source for source in sources]
        into = target.path if isinstance(target, Place) else target
        slash = target.slash if isinstance(target, Place) else os.path.basename(target) in {"", os.curdir, os.pardir}
        yield Trip(choices, account, source_end, target_end, tops, into, slash)
    account.end()


def _named(text: str) -> Named:
    """Return what *text* names: a locator is in a cluster, all else on this machine. No cluster in it means that of -c."""
    if not is_locator(text) and "://" not in text:
        return text
    place = Place.parse(text)
    return Place(place.path, place.cluster or None, place.slash)


def _copy(trip: Trip, title: str, verb: str, way: Way, *, verbose: bool, is_tree: bool = False) -> None:
    """Make the copies and report; *is_tree* is said of a directory whose copy is *into*."""
    choices = trip.choices
    with ExitStack() as stack:
        array = stack.enter_context(JsonArray()) if choices.json else None
        tally = Tally(trip.account, array, verbose=verbose, names_differences=not way.writes, check=way.deep)
        below = not is_tree and goes_below(trip.source, trip.target, trip.tops, trip.into, slash=trip.slash)
        copies = list(planned(trip.source, trip.target, trip.tops, trip.into, below=below, failed=tally.add_failed))
        with _bar(choices, title, copies, verbose=verbose) as bar:
            Carrier(trip.source, trip.target, tally, way).carry(copies, bar)
        if way.deep:
            _tell_extras(trip, copies, tally)
    summary = tally.summary(verb) if way.writes else tally.look_summary()
    if summary and not choices.quiet and not choices.json:
        say(summary)


def _tell_extras(trip: Trip, copies: Sequence[Copy], tally: Tally) -> None:
    """Tell what lies at the target alone."""
    known = {copy.target for copy in copies}
    found = trip.target.look(trip.into)
    for names, _ in trip.target.tree(trip.into) if found is not None and found.is_directory else ():
        spot = trip.target.below(trip.into, names)
        if names and spot not in known:
            tally.add_extra(spot)


def _bar(choices: Choices, title: str, copies: Sequence[Copy], *, verbose: bool) -> Bar:
    files = [copy for copy in copies if not copy.found.is_directory]
    shown = is_wanted(json=choices.json, quiet=choices.quiet) and not verbose
    return Bar(title, len(files), sum(copy.size for copy in files), shown=shown)
