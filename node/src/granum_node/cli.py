"""The command `granum-node`: one node in the foreground, until it is told to stop."""

import os
import resource
import signal
import sys
import time
from typing import Any  # click hands over what it parsed

import click

from granum.wire.errors import GranumError, StoreLocked
from granum_node import __version__
from granum_node.config import ADVERTISE, DURABILITY, NodeConfig, environment_layer, read_files, resolve

EXIT_USAGE = 2  # something that the caller must correct
EXIT_LOCKED = 75  # EX_TEMPFAIL: another node has the store


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--root", "-r", metavar="DIR", help="The store: the directory that holds the files. Must exist.")
@click.option("--port", "-p", type=int, metavar="N", help="TCP port; 0 takes any free one.  [default: 15348]")
@click.option(
    "--cluster", "-f", "--server-filter", metavar="NAME", help="The cluster this node belongs to.  [default: granum]"
)
@click.option("--bind", metavar="ADDR", help="The one address to serve on.  [default: 127.0.0.1, this machine only]")
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
    "--config", metavar="FILE", help="Settings in YAML, by the same names.  [default: /etc/granum/node.yaml, if any]"
)
@click.version_option(__version__, "--version", message="granum-node %(version)s")
def main(config: str | None, **options: Any) -> None:
    """Serve one directory of files as a node of a granum cluster.

    The node answers GET, HEAD and PUT; a file is stored once, whole, and never changed afterwards. It runs in the foreground
    until it gets SIGTERM or SIGINT, then says goodbye, finishes what is in flight and ends.

    \b
    A node for this machine:            granum-node --root /data
    A node for the lab's network:       granum-node --root /data --bind 10.0.0.5 --cluster lab
    Is it alive?                        curl http://127.0.0.1:15348/__healthz

    The spellings of PYME's data server (-r -p -f -a, --server-filter, --advertisements zeroconf) work too. Exit status: 0
    after a clean stop, 2 when a setting or the store is unusable, 75 when another node serves the store.
    """  # noqa: D301 - \b is click's mark for text that is not to be wrapped
    try:
        settings = resolve([("the command line", options), environment_layer(os.environ), *read_files(config)])
        run(settings)
    except StoreLocked as error:
        _fail(error, EXIT_LOCKED)
    except GranumError as error:
        _fail(error, EXIT_USAGE)


def run(config: NodeConfig) -> None:
    """Serve until SIGTERM or SIGINT; raise GranumError when the node cannot start."""
    from twisted.internet import reactor  # noqa: PLC0415 - installing it is a decision of the command, not of an import

    # Twisted's own clock is wall time; a step of the system's clock would fire or starve every timer.
    reactor.seconds = time.monotonic  # type: ignore[method-assign]
    from granum_node.service import NodeService  # noqa: PLC0415 - after the reactor

    _log_to_stderr()
    _allow_descriptors()
    node = NodeService(config, reactor)  # type: ignore[arg-type]  # typed as less than every reactor can do
    identity = node.identity
    serves = f"granum-node {identity.node_id} serves {config.root} at {node.url} (cluster {identity.cluster})"
    reactor.callWhenRunning(node.startService)
    reactor.callWhenRunning(click.echo, serves)  # whoever reads it may send signals
    reactor.addSystemEventTrigger("before", "shutdown", _ignore_signals)
    reactor.addSystemEventTrigger("before", "shutdown", node.stopService)
    reactor.run()


def _ignore_signals() -> None:
    """Let a second SIGTERM or SIGINT do nothing: the node is stopping, and will have stopped in a bounded time."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def _log_to_stderr() -> None:
    from twisted.logger import (  # noqa: PLC0415 - with the reactor, which it imports
        FilteringLogObserver,
        LogLevel,
        LogLevelFilterPredicate,
        globalLogBeginner,
        textFileLogObserver,
    )

    quiet = LogLevelFilterPredicate(defaultLogLevel=LogLevel.info)
    for noisy in ("twisted", "log_legacy"):
        quiet.setLogLevelForNamespace(noisy, LogLevel.warn)
    observer = FilteringLogObserver(textFileLogObserver(sys.stderr), [quiet])
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)


def _allow_descriptors() -> None:
    """Take as many file descriptors as this user may have: each connection needs one, and each put in flight."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _fail(error: GranumError, status: int) -> None:
    click.echo(f"granum-node: {error}", err=True)
    sys.exit(status)
