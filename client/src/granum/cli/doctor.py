"""`granum doctor`: what is wrong with the cluster as seen from this machine, one line each, with the remedy.

It asks the nodes, looks at this machine (`asking`, `machine`), and prints what `diagnosis` makes of it. It changes nothing.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from granum import __version__
from granum.cli.diagnosis import diagnose
from granum.cli.finding import WRONG, Finding
from granum.cli.options import Choices, Command, pass_choices
from granum.cli.output import GAP, print_json, say
from granum.cli.seen import Seen
from granum.cli.session import EXIT_FAILED
from granum.wire.errors import BadConfig

if TYPE_CHECKING:
    from granum.config import Config

THIS_MACHINE = "127.0.0.1"


@click.command(cls=Command, example="granum doctor -c lab --gateway gateway1")
@click.option(
    "--gateway",
    "gateways",
    metavar="HOST[:PORT]",
    multiple=True,
    help="A machine that ought to offer the share; may be repeated.  [default: this one, when it is a gateway]",
)
@pass_choices
def doctor(choices: Choices, gateways: tuple[str, ...]) -> None:
    """Look for what is wrong with the cluster, as seen from this machine, and say what to do about it.

    It checks that nodes are heard by mDNS and answer where they say; clocks, names, free space, whether puts are taken,
    versions and damaged files; on a gateway also its mounts and its share. Nothing is changed.

    Exit status: 0 all is well, 1 something is wrong, 2 usage.
    """
    found = diagnose(_see(choices, gateways))
    if choices.json:
        print_json([asdict(finding) for finding in found])
    else:
        for line in lines(found):
            say(line)
    if any(finding.state == WRONG for finding in found):
        raise click.exceptions.Exit(EXIT_FAILED)


def lines(found: Sequence[Finding]) -> list[str]:
    """Return a line for each finding: how it went, the check, what was seen → the remedy."""
    states = max(len(finding.state) for finding in found)
    checks = max(len(finding.check) for finding in found)
    return [
        f"{finding.state:<{states}}{GAP}{finding.check:<{checks}}{GAP}{finding.text}"
        + (f" → {finding.remedy}" if finding.remedy else "")
        for finding in found
    ]


def _see(choices: Choices, gateways: tuple[str, ...]) -> Seen:
    from twisted.internet.defer import Deferred  # noqa: PLC0415 - costs time that --help and completion do not have

    from granum.blocking.thread import reactor_thread  # noqa: PLC0415
    from granum.cli import machine  # noqa: PLC0415
    from granum.cli.asking import ask_all  # noqa: PLC0415
    from granum.config import load  # noqa: PLC0415

    _check_hosts(gateways)
    config = load({"cluster": choices.cluster, "nodes": choices.nodes or None})
    thread = reactor_thread()
    asking = thread.submit(lambda: Deferred.fromCoroutine(ask_all(thread.reactor, config, discover=choices.discovery)))
    gateway = machine.gateway()  # meanwhile
    hosts = gateways or ((THIS_MACHINE,) if gateway is not None else ())
    shares = tuple(machine.ask_share(host) for host in hosts)
    found, others = asking.result()
    return Seen(
        config.cluster,
        __version__,
        found,
        others,
        discovers=choices.discovery,
        has_list=_has_list(config),
        interfaces=machine.multicast_interfaces(),
        gateway=gateway,
        shares=shares,
    )


def _has_list(config: "Config") -> bool:
    """Whether the configuration, not the command line, lists the nodes."""
    return bool(config.nodes) and config.origins["nodes"] != "command line"


def _check_hosts(hosts: Sequence[str]) -> None:
    for host in hosts:
        name, colon, port = host.partition(":")
        if not name or (colon and not (port.isascii() and port.isdecimal() and 0 < int(port[:6]) < 65536)):
            raise BadConfig(f"{host!r} is no machine; write --gateway HOST or HOST:PORT")
