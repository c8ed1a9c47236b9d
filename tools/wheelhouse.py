"""Make the wheelhouse: granum and all that it needs, as one archive that installs on machines without a way to an index.

`granum-VERSION.tar` holds `wheels/` and the hashed `requirements.txt`, for each Python asked for; pip on the machine does the
rest. With `--tree` there is also `granum-VERSION-cpXY-MACHINE.tar.gz`, the same packages installed already: it unpacks in a
third of the time, where the machine has the Python that this runs on. The rule: what comes from an index is what
`requirements/host.txt` pins, hash for hash; granum itself is built from this checkout. A label (`0.1.0+LABEL`) tells two
builds of one version apart, since a machine keeps versions side by side by their names.
"""

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
from packaging.requirements import Requirement

from tools.environments import PIP, NotMade, run

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "requirements" / "host.txt"
WHEELHOUSE = ROOT / "build" / "wheelhouse"
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "client/src", "node/src")
VERSIONED = ("pyproject.toml", "client/src/granum/__init__.py", "node/src/granum_node/__init__.py")
# Debian 12 has glibc 2.36. Packages differ in the oldest that they name, and pip takes only tags that it is told.
GLIBC = ("manylinux_2_34", "manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014", "manylinux_2_12")
HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
PREFIX = "/opt/granum"  # where a tree will lie: what it installs names its interpreter
_VERSION = re.compile(r'^((?:__)?version(?:__)? = ")([^"]+)"', re.MULTILINE)
_LABEL = re.compile(r"[a-z0-9]+(\.[a-z0-9]+)*")


@click.command()
@click.option(
    "--python", "pythons", multiple=True, default=("3.11",), show_default=True, help="Of the machines; may be repeated."
)
@click.option("--machine", default="x86_64", show_default=True, help="Architecture of the machines: x86_64, aarch64.")
@click.option("--label", default="", help="Name this build: 0.1.0+LABEL.")
@click.option("--tree", is_flag=True, help=f"Also install it all into an archive, for machines with Python {HERE}.")
@click.option("--into", type=click.Path(path_type=Path), default=WHEELHOUSE, help="[default: build/wheelhouse]")
def main(pythons: tuple[str, ...], machine: str, label: str, *, tree: bool, into: Path) -> None:
    """Make the wheelhouse, and print the names of the archives."""
    if label and not _LABEL.fullmatch(label):
        raise click.BadParameter(f"{label!r} is no label; write small letters and digits, with dots between them")
    try:
        for archive in wheelhouse(pythons, machine, label, tree=tree, into=into):
            print(archive)
    except NotMade as reason:
        sys.exit(f"wheelhouse: {reason}")


def wheelhouse(pythons: Sequence[str], machine: str, label: str, *, tree: bool, into: Path) -> Iterator[Path]:
    """Yield the archives for *pythons* on *machine*, written into the directory *into*; raise NotMade."""
    if tree and (HERE not in pythons or machine != platform.machine()):
        raise NotMade(f"--tree needs machines like this one: Python {HERE} on {platform.machine()}")
    into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="granum-wheelhouse-") as scratch:
        content = Path(scratch) / "content"
        wheels = content / "wheels"
        wheels.mkdir(parents=True)
        wheel = _built(Path(scratch), wheels, label)
        version = wheel.name.split("-")[1]
        for python in pythons:
            _fetch(python, machine, wheels)
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        locked = LOCK.read_text(encoding="utf-8")
        (content / "requirements.txt").write_text(
            f"{locked}granum=={version} \\\n    --hash=sha256:{digest}\n", encoding="utf-8"
        )
        yield _packed(content, into / f"granum-{version}.tar", "w")
        if tree:
            name = f"granum-{version}-cp{HERE.replace('.', '')}-{machine}.tar.gz"
            yield _packed(_tree(Path(scratch), content, version), into / name, "w:gz")


def pins(lock: str, python: str, machine: str) -> Iterator[str]:
    """Yield the entries of the text *lock* that count for *python* on *machine*, each with its hashes and without its marker.

    pip itself would judge the markers by the interpreter that runs it, whatever Python it is told to fetch for.
    """
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "platform_machine": machine,
        "sys_platform": "linux",
        "platform_python_implementation": "CPython",
        "implementation_name": "cpython",
    }
    for entry in lock.replace("\\\n", " ").splitlines():
        if entry and not entry.startswith("#"):
            text, *hashes = entry.split(" --hash=")
            pin = Requirement(text)
            if pin.marker is None or pin.marker.evaluate(environment):
                yield " ".join([f"{pin.name}{pin.specifier}", *(f"--hash={value.strip()}" for value in hashes)])


def _built(scratch: Path, wheels: Path, label: str) -> Path:
    """Build granum from this checkout into *wheels*, under its own name or one with *label*; return the wheel."""
    sources = scratch / "sources"
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, sources / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            sources.mkdir(exist_ok=True)
            shutil.copy(ROOT / name, sources / name)
    if label:
        for name in VERSIONED:
            text = (sources / name).read_text(encoding="utf-8")
            (sources / name).write_text(_VERSION.sub(rf'\g<1>\g<2>+{label}"', text, count=1), encoding="utf-8")
    run(*PIP, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(wheels), str(sources))
    (wheel,) = wheels.glob("granum-*.whl")
    return wheel


def _fetch(python: str, machine: str, wheels: Path) -> None:
    """Fetch what the lock pins for *python* on *machine* into *wheels*."""
    requirements = wheels.with_name(f"for-{python}.txt")
    requirements.write_text("\n".join(pins(LOCK.read_text(encoding="utf-8"), python, machine)), encoding="utf-8")
    platforms = [option for glibc in GLIBC for option in ("--platform", f"{glibc}_{machine}")]
    where = ("--python-version", python, *platforms, "--dest", str(wheels), "--requirement", str(requirements))
    run(*PIP, "download", "--only-binary", ":all:", "--no-deps", "--require-hashes", *where)
    requirements.unlink()


def _tree(scratch: Path, content: Path, version: str) -> Path:
    """Install the wheels of *content* as an environment at PREFIX/VERSION would hold them, without its interpreter."""
    tree, final = scratch / "tree", f"{PREFIX}/{version}"
    run(sys.executable, "-m", "venv", "--without-pip", str(tree))
    locked = ("--no-index", "--find-links", str(content / "wheels"), "--require-hashes")
    python = tree / "bin" / "python"
    run(*PIP, "--python", str(python), "install", "--no-compile", *locked, "-r", str(content / "requirements.txt"))
    library = tree / "lib" / f"python{HERE}" / "site-packages"
    # The daemon may not write where it is installed, so what is not compiled now is compiled at every start.
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    compiling = (str(python), "-m", "compileall", "-q", "-s", str(tree), "-p", final, str(library))
    subprocess.run(compiling, check=False, **silent)  # type: ignore[call-overload]  # a package may ship files of other Pythons
    kept = scratch / "kept"
    (kept / "bin").mkdir(parents=True)
    (tree / "lib").rename(kept / "lib")
    for name in ("granum", "granum-node"):
        script = (tree / "bin" / name).read_text(encoding="utf-8")
        (kept / "bin" / name).write_text(script.replace(str(tree), final, 1), encoding="utf-8")
        (kept / "bin" / name).chmod(0o755)
    return kept


def _packed(directory: Path, archive: Path, mode: str) -> Path:
    """Pack what *directory* holds into *archive*, owned by root whoever packs it."""
    unfinished = archive.with_name(f"{archive.name}.{os.getpid()}")
    with tarfile.open(unfinished, mode) as tar:  # type: ignore[call-overload]  # two literal modes
        tar.add(directory, arcname=".", filter=_of_root)
    unfinished.rename(archive)
    return archive


def _of_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    member.mode |= 0o044 | (
        0o011 if member.mode & 0o100 else 0
    )  # the service's user reads it, whatever umask packed it
    return member


if __name__ == "__main__":
    main()
