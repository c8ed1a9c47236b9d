"""`make bench-node`: one table of the node, its peers and the limits of the machine, measured in turn in one run."""

import dataclasses
import json
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import click

from integration.bench import listing, machine, programs, report, targets
from integration.bench.contest import DIGEST, Contest, Contestant, Results, contestants
from integration.bench.peers import Granum, Mode, Peer, Pyme, node_options
from integration.bench.sample import CELLS, Cell, Failed

FREE_BYTES_MIN = 4 << 30  # in memory, for the stores of five servers
ENTRIES, ENTRIES_QUICK = 100_000, 10_000
QUICK_SIZES = ("8M", "1K")


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run does; *fetch* allows it to install what is missing."""

    repetitions: int
    seconds: float
    cells: tuple[Cell, ...]
    entries: int
    ping_s: float
    fetch: bool


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--repetitions", type=click.IntRange(min=1), default=5, show_default=True, help="How often everything is measured."
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0.01),
    default=1.0,
    show_default=True,
    help="Length of one sample, after its warm-up.",
)
@click.option(
    "--only", multiple=True, metavar="WORDS", help="Only cells with all WORDS, such as 'put 8M' or 'listing'."
)
@click.option("--quick", is_flag=True, help="A smoke run: large and small files, 0.1 s each, once; installs nothing.")
@click.option(
    "--directory",
    type=click.Path(path_type=Path),
    default=programs.BUILD,
    help="Disk for the rows that sync.  [default: build/bench]",
)
@click.option(
    "--memory",
    type=click.Path(path_type=Path),
    default=Path("/dev/shm"),
    show_default=True,
    help="Stores of all other rows.",
)
def main(
    *, repetitions: int, seconds: float, only: tuple[str, ...], quick: bool, directory: Path, memory: Path
) -> None:
    """Compare the node with nginx, PYME's node and the limits of this machine; print tables in Markdown.

    A full run takes about a quarter of an hour, the first one some minutes more to install PYME's node. The tables are kept in
    build/bench/node.md, every sample in build/bench/node.json. The exit status is 1 when a server gave a wrong answer; a
    missed goal is a line of the last table.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers are ended then too
    plan = Plan(
        repetitions, seconds, _chosen(CELLS, only), ENTRIES if _wants_listing(only) else 0, listing.PING_S, fetch=True
    )
    if quick:
        few = tuple(cell for cell in plan.cells if cell.size in QUICK_SIZES)
        entries = min(plan.entries, ENTRIES_QUICK)
        plan = Plan(1, 0.1, few, entries, 0.5, fetch=False)
    if not plan.cells and not plan.entries:
        raise click.UsageError(
            f"--only {' --only '.join(only)} leaves nothing; words are those of the first three columns"
        )
    for place in (directory, memory):
        place.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(memory).free < FREE_BYTES_MIN:
        raise click.ClickException(f"{memory} needs 4 GiB free; name another place with --memory")
    with ExitStack() as scratch:
        places = {}
        for name, parent in (("memory", memory), ("disk", directory)):
            places[name] = Path(tempfile.mkdtemp(prefix="granum-bench-", dir=parent))
            scratch.callback(shutil.rmtree, places[name], ignore_errors=True)
        sys.exit(run(plan, places))


def run(plan: Plan, places: dict[str, Path]) -> int:
    """Do what *plan* says in stores below *places*, print the tables and keep them; the exit status."""
    absent = _prepare(fetch=plan.fetch)
    present = [
        dataclasses.replace(each, absent=each.absent or absent.get(each.name, ""))
        for each in contestants(node_options())
    ]
    before, began = machine.cpu_ticks(), time.monotonic()
    contest = Contest(present, plan.cells, places, plan.seconds, _say)
    try:
        programs.compiled("load", fetch=plan.fetch)
    except programs.Absent as error:
        contest.results.absent["all throughput"] = str(error)
    else:
        if plan.cells:
            contest.run(plan.repetitions)
    listed = _listings(plan, places["memory"], contest.results) if plan.entries else {}
    conditions = _conditions(plan, places, before, time.monotonic() - began)
    _publish(conditions, plan, present, places, contest.results, listed)
    return 1 if contest.results.failures else 0


def _prepare(*, fetch: bool) -> dict[str, str]:
    """Get what the peers need before anything is timed; return why which of them is absent."""
    absent = {}
    for name, get in (("nginx", programs.nginx), ("PYME", programs.pyme)):
        try:
            get(fetch=fetch)
        except programs.Absent as error:
            absent[name] = str(error)
    return absent


def _listings(plan: Plan, memory: Path, results: Results) -> dict[str, list[listing.Listed]]:
    """Measure listings of granum and PYME in turn."""
    listed: dict[str, list[listing.Listed]] = {}
    peers: dict[str, Peer] = {
        "granum": Granum(memory / "listed-granum", memory / "scratch-granum", Mode("relaxed", "none")),
        "PYME": Pyme(memory / "listed-pyme", memory / "scratch-pyme"),
    }
    _say(f"listings of {plan.entries} entries")
    for peer in peers.values():
        listing.make_directory(peer.root, plan.entries)
    for repetition in range(plan.repetitions):
        for name in sorted(peers, reverse=bool(repetition % 2)):
            try:
                listed.setdefault(name, []).append(listing.measure(peers[name], plan.entries, plan.ping_s))
            except programs.Absent as error:
                results.absent[f"{name}, listing"] = str(error)
            except Failed as error:
                results.failures.append(f"{name}, listing: {error}")
    return {name: each for name, each in listed.items() if each}


def _conditions(plan: Plan, places: dict[str, Path], before: dict[str, int], seconds: float) -> list[str]:
    how = f"{plan.repetitions} repetitions of {plan.seconds:g} s in rotated order; {seconds / 60:.1f} min"
    return [
        *machine.description(places),
        f"{how}, {machine.busy(before)}",
        f"durability and digest are named in each row ({DIGEST} is the node's default); no compression, no TLS",
    ]


def _publish(
    conditions: Sequence[str],
    plan: Plan,
    present: Sequence[Contestant],
    places: dict[str, Path],
    results: Results,
    listed: dict[str, list[listing.Listed]],
) -> None:
    """Print the tables, keep them as node.md and all samples as node.json."""
    systems = {place: machine.file_system(path) for place, path in places.items()}
    parts = ["\n".join(f"- {line}" for line in conditions)]
    if results.samples:
        parts.append(report.rows(results, plan.cells, present, systems))
    if listed:
        parts.append(f"Listings of {plan.entries:,} entries, waits in ms\n\n{report.listing_rows(listed)}")
    goals = list(targets.measured(results, listed))
    if goals:
        parts.append(report.target_rows(goals))
    notes = [f"- not run: {name}: {reason}" for name, reason in results.absent.items()]
    notes += [f"- FAILED {failure}" for failure in results.failures]
    if notes:
        parts.append("\n".join(notes))
    text = "\n\n".join(parts)
    click.echo(text)
    programs.BUILD.mkdir(parents=True, exist_ok=True)
    (programs.BUILD / "node.md").write_text(text + "\n")
    samples = [
        {"cell": cell, "server": name, "repetition": number, **sample.as_json()}
        for (cell, name), each in results.samples.items()
        for number, sample in each.items()
    ]
    kept = {
        "conditions": conditions,
        "samples": samples,
        "listings": {name: [dataclasses.asdict(one) for one in each] for name, each in listed.items()},
        "goals": [{**dataclasses.asdict(each), "met": each.met} for each in goals],
        "absent": results.absent,
        "failures": results.failures,
    }
    (programs.BUILD / "node.json").write_text(json.dumps(kept, indent=1) + "\n")


def _chosen(cells: Sequence[Cell], only: Sequence[str]) -> tuple[Cell, ...]:
    """Return the cells that hold all words of one of *only*, or all when there is none."""
    wanted = [set(words.split()) for words in only]
    return tuple(cell for cell in cells if not wanted or any(words <= set(str(cell).split()) for words in wanted))


def _wants_listing(only: Sequence[str]) -> bool:
    return not only or any("listing" in words.split() for words in only)


def _say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
