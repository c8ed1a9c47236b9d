"""`granum serve`: a cluster of one on this machine, in the foreground.

The daemon is a child process, started as any other program: the client knows nothing of the node's code. It gets a session
of its own, so that Ctrl-C reaches it once, through this command, which passes signals on and returns its exit status.
"""

import os
import re
import signal
import subprocess
import sys
from importlib.util import find_spec
from types import FrameType

import click

from granum.cli.options import Choices, Command
from granum.cli.output import print_json, remark, say
from granum.wire.errors import GranumError

DAEMON = "granum_node"
STOP_SIGNALS = {signal.SIGINT: signal.SIGINT, signal.SIGTERM: signal.SIGTERM, signal.SIGHUP: signal.SIGTERM}

_SERVES = re.compile(r"granum-node (\S+) serves .* at http://([0-9.]+):([0-9]+) \(cluster (\S+)\)")


@click.command(cls=Command, alone=True, example="granum serve ~/microscope")
@click.argument("directory", metavar="DIR", type=click.Path(file_okay=False))
@click.option("--port", metavar="N", help="TCP port; 0 takes any free one.  [default: 15348]")
@click.option("-c", "--cluster", metavar="NAME", help="The name of the cluster.  [default: granum]")
@click.option("--bind", metavar="ADDR", help="The address to serve on.  [default: 127.0.0.1, this machine only]")
@click.option(
    "--allow",
    metavar="NET=rw|ro",
    help="The networks whose hosts may talk to it, by commas.  [default: this machine, rw]",
)
@click.option(
    "--advertise",
    metavar="mdns|local|off",
    default="mdns",
    show_default=True,
    help="How clients find it: by mDNS, in the registry of this machine, or not at all.",
)
@click.pass_context
def serve(ctx: click.Context, /, directory: str, **options: str | None) -> None:
    """Serve DIR as a cluster of one, on this machine, until Ctrl-C.

    DIR is made when it is missing. Its files stay plain files: the cluster is gone when the command ends, they are not.
    """
    choices = ctx.ensure_object(Choices)
    options["cluster"] = options["cluster"] or choices.cluster  # as in 'granum -c lab serve DIR'
    if find_spec(DAEMON) is None:
        raise GranumError("the daemon is not installed here; install it with: pip install 'granum[node]'")
    if not os.path.isdir(directory):
        os.makedirs(directory)
        if not choices.quiet:
            remark(f"made the directory {directory}")
    settings = [word for name, value in options.items() if value is not None for word in (f"--{name}", value)]
    ctx.exit(_run([sys.executable, "-m", DAEMON, "--root", directory, *settings], choices, str(options["advertise"])))


def _run(command: list[str], choices: Choices, advertise: str) -> int:
    """Run the daemon to its end; return its exit status, 128 + n after signal n."""
    waiting: list[int] = []  # signals that came before there was a process to tell
    process: subprocess.Popen[str] | None = None

    def pass_on(number: int, _: FrameType | None) -> None:
        if process is None:
            waiting.append(number)
        else:
            process.send_signal(STOP_SIGNALS[signal.Signals(number)])

    before = {number: signal.signal(number, pass_on) for number in STOP_SIGNALS}
    try:
        process = subprocess.Popen(  # noqa: S603 - this interpreter, with arguments that no shell reads
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        assert process.stdout is not None
        for number in waiting:
            pass_on(number, None)
        with process.stdout as lines:
            for line in lines:
                found = _SERVES.match(line)
                if found is not None:
                    _say_how_to_reach(found, choices, advertise)
        status = process.wait()
        return status if status >= 0 else 128 - status
    finally:
        if process is not None and process.poll() is None:  # the terminal is gone, or the like: leave nothing running
            process.terminate()
            process.wait()
        for number, action in before.items():
            signal.signal(number, action)


def _say_how_to_reach(found: "re.Match[str]", choices: Choices, advertise: str) -> None:
    node_id, address, port, cluster = found.groups()
    host = f"{address}:{port}"
    if choices.json:
        url = f"http://{host}"
        print_json({"url": url, "address": address, "port": int(port), "cluster": cluster, "node_id": node_id})
    elif not choices.quiet:
        is_found = advertise in {"mdns", "zeroconf", "local"}
        reach = f"-c {cluster}" if is_found else f"-n {host} --no-discovery"
        arguments = f'"{cluster}"' if is_found else f'nodes=["{host}"], discover=False'
        say(
            f"Cluster {cluster} is up: one node at http://{host}, seen by "
            + ("this machine alone" if address.startswith("127.") else "every machine that reaches this address")
        )
        say(f"\n  granum {reach} put FILE /\n  granum {reach} ls /\n")
        say(f'  import granum\n  cluster = granum.connect({arguments})\n  print(*cluster.listdir("/"))\n')
        say("Ctrl-C ends it; the files stay.")
    sys.stdout.flush()
