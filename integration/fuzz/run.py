"""Every target under the coverage-guided fuzzer, each for a bounded time, as one table.

The fuzzer is atheris, which the project does not otherwise need: it is fetched, as `requirements/fuzz.txt` pins it, into
`build/fuzz` and never into `.venv`. First a planted defect must be found; else nothing else that is found means anything.
What a run learns is kept in `build/fuzz/corpus` and is where the next one begins; an input that fails is kept beside it.
"""

import hashlib
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import click

from integration.fuzz.targets import PLANTED_TARGET, TARGETS, Target
from tools.environments import PIP, NotMade, run

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "requirements" / "fuzz.txt"
BUILD = ROOT / "build" / "fuzz"
PLANTED_S = 60  # to find the planted defect; it takes a second or two
INPUT_S = 10  # for one input: what takes longer counts as a hang
RSS_MIB = 1024
START_S = 60  # for the fuzzer to import its target and read its corpus
_DONE = re.compile(r"Done (\d+) runs")
_RAISED = re.compile(r"Uncaught Python exception: ===\s*(.+)")
_CRASHED = re.compile(r"(==\d+== ERROR.*)")
_RUNS = re.compile(r"^#(\d+)\t.* cov: (\d+).* rss: (\d+)Mb", re.MULTILINE)


class Absent(Exception):
    """The fuzzer cannot run here; the text says why."""


@dataclass(frozen=True, slots=True)
class Run:
    """What one run of the fuzzer came to; *failure* is its last words and *input* where the failing input lies, if any."""

    runs: int
    coverage: int
    rss_mib: int
    took_s: float
    failure: str = ""
    input: Path | None = None


@click.command()
@click.option("--seconds", type=click.IntRange(min=1), default=60, show_default=True, help="For each target.")
@click.argument("names", nargs=-1, metavar="[TARGET]...")
def main(seconds: int, names: tuple[str, ...]) -> None:
    """Look for bytes that the readers of granum do not withstand."""
    unknown = set(names) - set(TARGETS)
    if unknown:
        raise click.BadParameter(f"there is no target {', '.join(unknown)}; there are {', '.join(TARGETS)}")
    try:
        library = fuzzer()
    except Absent as absent:
        click.echo(f"fuzz: skipped, because {absent}")
        return
    planted = fuzz("planted", PLANTED_TARGET, PLANTED_S, library)
    if "planted defect" not in planted.failure:
        sys.exit(f"fuzz: FAILED, a planted defect was not found in {PLANTED_S} s: {planted.failure or planted}")
    click.echo(f"fuzz: a planted defect was found after {planted.took_s:.0f} s")
    failed = False
    for name in names or TARGETS:
        seen = fuzz(name, TARGETS[name], seconds, library)
        failed |= bool(seen.failure)
        verdict = "FAILED" if seen.failure else "passed"
        click.echo(
            f"fuzz: {name:8} {verdict}  {seen.runs} inputs in {seen.took_s:.0f} s, {seen.coverage} branches, {seen.rss_mib} MiB"
        )
        if seen.failure:
            click.echo(f"      {seen.failure}\n      input: {seen.input}")
    sys.exit(1 if failed else 0)


def fuzzer() -> Path:
    """Return the directory that holds atheris, fetched when it is missing or another one is pinned; raise Absent."""
    stamp = hashlib.sha256(LOCK.read_bytes() + sys.version.encode()).hexdigest()[:16]
    library = BUILD / f"atheris-{stamp}"
    if not library.exists():
        unfinished = BUILD / f"{library.name}.{os.getpid()}"
        click.echo("fuzz: fetching atheris, once")
        what = ("--require-hashes", "--only-binary", ":all:", "--target", str(unfinished), "--requirement", str(LOCK))
        try:
            run(*PIP, "install", *what)
        except NotMade as reason:
            sys.exit(f"fuzz: FAILED, atheris cannot be had: {reason}")
        unfinished.mkdir(parents=True, exist_ok=True)  # pip makes none when no requirement is for this interpreter
        unfinished.rename(library)
    if not (library / "atheris").exists():
        raise Absent("atheris has no build for this interpreter or processor")
    return library


def fuzz(name: str, target: Target, seconds: int, library: Path) -> Run:
    """Fuzz *target*, called *name*, for *seconds*."""
    seeds, corpus, failures = (BUILD / kind / name for kind in ("seeds", "corpus", "failures"))
    for each in (seeds, corpus, failures):
        each.mkdir(parents=True, exist_ok=True)
    for seed in target.seeds():
        (seeds / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)
    tokens = BUILD / f"{name}.dict"
    tokens.write_text("".join(f'"{_escaped(token)}"\n' for token in target.tokens))
    options = [
        f"-max_total_time={seconds}", f"-timeout={INPUT_S}", f"-rss_limit_mb={RSS_MIB}", f"-max_len={target.bytes_max}",
        f"-artifact_prefix={failures}/",
    ]  # fmt: skip
    if target.tokens:
        options.append(f"-dict={tokens}")
    if target is not PLANTED_TARGET:  # which must not begin with what it found the last time
        options.append(str(corpus))
    began = time.monotonic()
    done = subprocess.run(
        (sys.executable, "-m", "integration.fuzz.guided", name, *options, str(seeds)),
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(library), "PYTHONDONTWRITEBYTECODE": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        timeout=seconds + INPUT_S + START_S,
    )
    return _read(done.returncode, done.stdout + done.stderr, time.monotonic() - began, failures)


def _escaped(token: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in token)


def _read(status: int, said: str, took_s: float, failures: Path) -> Run:
    """Return what a fuzzer that ended with *status* *said*."""
    progress = _RUNS.findall(said)
    runs, coverage, rss = map(int, progress[-1]) if progress else (0, 0, 0)
    finished = _DONE.search(said)
    if finished and not status:
        return Run(int(finished[1]), coverage, rss, took_s)
    kept = re.search(rf"written to (\S*{re.escape(str(failures))}\S+)", said)
    found = _RAISED.search(said) or _CRASHED.search(said)
    last = found[1] if found else (said.strip().splitlines() or ["it said nothing"])[-1]
    return Run(runs, coverage, rss, took_s, failure=last[:300], input=Path(kept[1]) if kept else None)


if __name__ == "__main__":
    main()
