"""What the benchmark needs and the project does not: a C compiler, nginx, PYME's node.

Each is looked for, then fetched: Debian's packages with apt, PYME with pip into a virtual environment of its own. What cannot be
had is `Absent`, with the reason, which the table prints in place of figures. Nothing outside `build/bench` changes, but for a
compiler that root lets apt install.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tools.environments import NotMade, environment, is_made

HERE = Path(__file__).parent
BUILD = HERE.parents[1] / "build" / "bench"
C_FLAGS = ("-O2", "-Wall", "-Wno-unused-function", "-pthread")

PYME = "python-microscopy==26.9.3"
# PYME asks for a desktop (wxPython, of which Linux has no wheel); this is what its data server imports. It and pymecompress come
# as source and build with the first group, without saying so in a way that pip understands.
PYME_BUILDS_WITH = ("numpy<2.5", "cython", "setuptools", "wheel", "meson-python", "meson", "ninja")
PYME_IMPORTS = ("requests", "pyyaml", "psutil", "ujson", "six", "future", "zeroconf", "jinja2", "tables")
PYME_BUILDS = ("pymecompress", PYME)


class Absent(Exception):
    """A program is not here and cannot be fetched; the text says why."""


def compiled(name: str, *, fetch: bool = True) -> Path:
    """Return the program made from `name.c`, compiled again when its source is newer; raise Absent without a compiler."""
    sources = [HERE / f"{name}.c", HERE / "sample.h"]
    program = BUILD / name
    if program.exists() and all(program.stat().st_mtime > source.stat().st_mtime for source in sources):
        return program
    compiler = shutil.which("cc")
    if compiler is None and fetch and os.geteuid() == 0 and shutil.which("apt-get"):
        _run("apt-get", "-q=2", "update")
        _run("apt-get", "-q=2", "install", "--no-install-recommends", "gcc", "libc6-dev")
        compiler = shutil.which("cc")
    if compiler is None:
        raise Absent("no C compiler; as root: apt-get install gcc libc6-dev")
    BUILD.mkdir(parents=True, exist_ok=True)
    unfinished = BUILD / f"{name}.{os.getpid()}"
    _run(compiler, *C_FLAGS, "-o", str(unfinished), str(sources[0]))
    unfinished.rename(program)  # another run may be starting it
    return program


def nginx(*, fetch: bool = True) -> Path:
    """Return an nginx that has the DAV module; Debian's package is unpacked, not installed, so that no service starts."""
    unpacked = BUILD / "nginx" / "usr" / "sbin" / "nginx"
    found = shutil.which("nginx", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
    program = Path(found) if found else unpacked
    if not program.exists():
        if not fetch or not shutil.which("apt-get"):
            raise Absent("not installed")
        _unpack_debian("nginx", BUILD / "nginx")
    if "http_dav_module" not in subprocess.run((program, "-V"), check=True, capture_output=True, text=True).stderr:
        raise Absent(f"{program} was built without its DAV module")
    return program


def pyme(*, fetch: bool = True) -> Path:
    """Return the interpreter of an environment in which PYME's data server starts, made when it is missing."""
    directory, made_from = BUILD / "pyme", " ".join((*PYME_BUILDS_WITH, *PYME_IMPORTS, *PYME_BUILDS))
    if fetch:
        installs = [(*PYME_BUILDS_WITH, *PYME_IMPORTS), ("--no-build-isolation", "--no-deps", *PYME_BUILDS)]
        try:
            environment(directory, made_from, installs, imports="PYME.cluster.HTTPDataServer")
        except NotMade as error:
            raise Absent(str(error)) from error
    elif not is_made(directory, made_from):
        raise Absent("not installed; make pyme installs it")
    return directory / "bin" / "python"


def _unpack_debian(package: str, into: Path) -> None:
    """Fetch *package* with apt and unpack it: needs no root, and changes nothing on the machine."""
    scratch = into.with_name(f"{into.name}.apt")
    for below in ("lists/partial", "cache/archives/partial"):
        (scratch / below).mkdir(parents=True, exist_ok=True)
    where = ("-o", f"Dir::State::lists={scratch}/lists", "-o", f"Dir::Cache={scratch}/cache")
    apt = ("apt-get", "-q=2", *where, "-o", "APT::Sandbox::User=root", "-o", "Debug::NoLocking=true")
    _run(*apt, "update", cwd=scratch)
    _run(*apt, "download", package, cwd=scratch)
    for file in scratch.glob("*.deb"):
        _run("dpkg-deb", "-x", str(file), str(into))
    shutil.rmtree(scratch)


def _run(*command: str, cwd: Path | None = None) -> None:
    """Run *command* silently; raise Absent with the end of what it printed when it fails."""
    print(f"bench: {' '.join(command[:6])} ...", file=sys.stderr, flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(
        command, check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment, cwd=cwd
    )
    if done.returncode:
        lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise Absent(f"{Path(command[0]).name} failed: {lines[-1] if lines else done.returncode}")


def main() -> None:
    """Make PYME's environment when it is missing; end with 1 and the reason where it cannot be had."""
    try:
        print(pyme())
    except Absent as error:
        sys.exit(f"pyme: {error}")


if __name__ == "__main__":
    main()
