"""The command `granum-node`: one node in the foreground, until it is told to stop."""

import gc
import os
import resource
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any  # click hands over what it parsed

import click

from granum.wire.errors import GranumError, StoreLocked, StoreUnusable
from granum_node import __version__
from granum_node.commands import EXIT_USAGE, printable, quarantine, root_of, store_options
from granum_node.config import ADVERTISE, DIGEST, DURABILITY, LOG, NodeConfig, environment_layer, read_files, resolve
from granum_node.storage.quarantine import opened_quarantine
from granum_node.storage.verify import State, verify

EXIT_DAMAGED = 1  # a file of the store is not what was put
EXIT_LOCKED = 75  # EX_TEMPFAIL: another node has the store
SWITCH_S = 0.0005  # after which a busy thread gives way to the reactor: docs/decisions/0042
LEAST_PRIORITY = 19  # of processor and, with it, of disk: whoever serves or measures on this machine goes first


@click.group(
    invoke_without_command=True,
    subcommand_metavar="[verify | quarantine ...]",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option("--root", "-r", metavar="DIR", help="The store: the directory that holds the files. Must exist.")
@click.option("--port", "-p", type=int, metavar="N", help="TCP port; 0 takes any free one.  [default: 15348]")
@click.option(
    "--cluster", "-f", "--server-filter", metavar="NAME", help="The cluster this node belongs to.  [default: granum]"
)
@click.option(
    "--bind",
    metavar="ADDR",
    multiple=True,
    callback=lambda _context, _option, given: given or None,
    help="An address to serve on; several by commas or repetition.  [default: 127.0.0.1, this machine only]",
)
@click.option(
    "--allow",
    metavar="NET=rw|ro",
    multiple=True,
    callback=lambda _context, _option, given: given or None,
    help="A network whose hosts may talk to the node, and how; may be repeated.  [default: this machine, rw]",
)
@click.option(
    "--advertise",
    "-a",
    "--advertisements",
    metavar="|".join(ADVERTISE),
    help="How clients find this node: mDNS, PYME's registry on this machine, or not at all.  [default: mdns]",
)
@click.option(
    "--durability",
    metavar="|".join(DURABILITY),
    help="What a receipt means: the file is on the disk, or it is visible and will be on the disk soon.  [default: commit]",
)
@click.option(
    "--relaxed-window-s",
    metavar="S",
    help="With durability relaxed, the seconds of receipts that a power failure may take.  [default: 2]",
)
@click.option(
    "--scrub-days",
    metavar="N",
    help="How long one reading of the whole store takes, in search of damage; 0 for none.  [default: 30]",
)
@click.option(
    "--reserve-bytes", metavar="SIZE", help="Room that puts never take: 500MB, 2%.  [default: 1 %, at least 1GiB]"
)
@click.option(
    "--digest",
    metavar="|".join(DIGEST),
    help="Which digest is computed of every file that arrives, and kept beside it.  [default: xxh3-128]",
)
@click.option("--reserve-inodes", metavar="N", help="Inodes that puts never take.  [default: 10000]")
@click.option(
    "--log", metavar="|".join(LOG), help="How the log is written.  [default: auto: json under systemd, else text]"
)
@click.option("--log-requests", is_flag=True, default=None, help="Log every answer.")
@click.option(
    "--config", metavar="FILE", help="Settings in YAML, by the same names.  [default: /etc/granum/node.yaml, if any]"
)
@click.version_option(__version__, "--version", message="granum-node %(version)s")
@click.pass_context
def main(context: click.Context, /, config: str | None, **options: Any) -> None:
    """Serve one directory of files as a node of a granum cluster.

    The node answers GET, HEAD and PUT; a file is stored once, whole, and never changed afterwards. It runs in the foreground
    until it gets SIGTERM or SIGINT, then says goodbye, finishes what is in flight and ends.

    \b
    A node for this machine:            granum-node --root /data
    A node for the lab's network:       granum-node --root /data --bind 10.0.0.5 --allow 10.0.0.0/24=rw
    Is it alive?                        curl http://127.0.0.1:15348/__healthz

    The spellings of PYME's data server (-r -p -f -a, --server-filter, --advertisements zeroconf) work too. Exit status: 0
    after a clean stop, 2 when a setting or the store is unusable, 75 when another node serves the store.
    """  # noqa: D301 - \b is click's mark for text that is not to be wrapped
    if context.invoked_subcommand is not None:
        return
    try:
        settings = resolve([("the command line", options), environment_layer(os.environ), *read_files(config)])
        run(settings)
    except StoreLocked as error:
        _fail(error, EXIT_LOCKED)
    except GranumError as error:
        _fail(error, EXIT_USAGE)


@main.command("verify")
@store_options
def verify_store(root: str | None, config: str | None) -> None:
    """Read every file of a store and compare it with the digests that are kept beside it and in the digest log.

    Files that are damaged, cannot be read, have no digest or have lost the one beside them are named, one a line, and so are
    those in quarantine. Exit status: 0 when no file is damaged, unreadable or in quarantine, 1 when one is, 2 when the store
    cannot be used.
    """
    try:
        store = root_of(root, config)
        os.nice(LEAST_PRIORITY)
        numbers: Counter[State] = Counter()
        for verdict in verify(store):
            numbers[verdict.state] += 1
            if verdict.state is not State.GOOD:
                click.echo(f"{verdict.state.value}: {printable(verdict.name)}")
        held = _quarantined(store)
        for path in held:
            click.echo(f"in quarantine: {printable(path)}")
    except GranumError as error:
        _fail(error, EXIT_USAGE)
    click.echo(f"{numbers.total()} files: {', '.join(f'{numbers[state]} {state.value}' for state in State)}")
    if numbers[State.DAMAGED] or numbers[State.UNREADABLE] or held:
        sys.exit(EXIT_DAMAGED)


def _quarantined(store: str) -> list[str]:
    """Return the names of the files in quarantine; none for a directory that was never served, or not by this user."""
    try:
        with opened_quarantine(store) as found:
            return [note.path for note in found.notes]
    except StoreUnusable:
        return []


main.add_command(quarantine)


def run(config: NodeConfig) -> None:
    """Serve until SIGTERM or SIGINT; raise GranumError when the node cannot start."""
    from twisted.internet import reactor  # noqa: PLC0415 - installing it is a decision of the command, not of an import

    # Twisted's own clock is wall time; a step of the system's clock would fire or starve every timer.
    reactor.seconds = time.monotonic  # type: ignore[method-assign]
    from granum_node.service import NodeService  # noqa: PLC0415 - after the reactor

    sys.setswitchinterval(SWITCH_S)
    _log_to_stderr(config.log)
    _allow_descriptors()
    node = NodeService(config, reactor)  # type: ignore[arg-type]  # typed as less than every reactor can do
    identity = node.identity
    serves = f"granum-node {identity.node_id} serves {config.root} at {node.url} (cluster {identity.cluster})"
    _ignore_hangup(reactor.callFromThread)  # type: ignore[attr-defined]
    reactor.callWhenRunning(node.startService)
    reactor.callWhenRunning(gc.freeze)  # what was imported stays, so no search for garbage need look at it again
    reactor.callWhenRunning(click.echo, serves)  # whoever reads it may send signals
    reactor.addSystemEventTrigger("before", "shutdown", _ignore_signals)
    reactor.addSystemEventTrigger("before", "shutdown", node.stopService)
    reactor.run()


def _ignore_signals() -> None:
    """Let a second SIGTERM or SIGINT do nothing: the node is stopping, and will have stopped in a bounded time."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def _ignore_hangup(call_soon: Callable[[Callable[[], None]], None]) -> None:
    """Let SIGHUP do nothing but leave a word: the node keeps no file open that it could open again."""
    from twisted.logger import Logger  # noqa: PLC0415 - with the reactor, which it imports

    def note() -> None:
        Logger().info("SIGHUP is ignored: to read the settings again, restart the node")

    signal.signal(signal.SIGHUP, lambda *_: call_soon(note))


def _log_to_stderr(form: str) -> None:
    from twisted.logger import (  # noqa: PLC0415 - with the reactor, which it imports
        FilteringLogObserver,
        LogLevel,
        LogLevelFilterPredicate,
        globalLogBeginner,
    )

    from granum_node.logs import LineObserver, choose_form  # noqa: PLC0415 - with the reactor, which it imports

    quiet = LogLevelFilterPredicate(defaultLogLevel=LogLevel.info)
    for noisy in ("twisted", "log_legacy"):
        quiet.setLogLevelForNamespace(noisy, LogLevel.warn)
    chosen = choose_form(form, os.environ, terminal=sys.stderr.isatty())
    observer = FilteringLogObserver(LineObserver(sys.stderr, chosen, time.monotonic), [quiet])
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)


def _allow_descriptors() -> None:
    """Take as many file descriptors as this user may have: each connection needs one, and each put in flight."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _fail(error: GranumError, status: int) -> None:
    click.echo(f"granum-node: {error}", err=True)
    sys.exit(status)
