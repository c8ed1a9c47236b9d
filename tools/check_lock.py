"""Check, without the network, that the files in `requirements/` are what `pyproject.toml` asks for.

Every requirement must have its pin on every Python that granum supports, every pin its hashes, and no line may name an index.
It does not solve anything: whether newer versions exist is the business of `make lock`.
"""

import os
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools import tree

PYTHONS = ("3.11", "3.12", "3.13", "3.14")
LOCKS = {"lock.txt": ("dev", "build"), "host.txt": (), "fuzz.txt": ("fuzz",), "deploy.txt": ("deploy",)}  # their groups
OF_GRANUM = ("lock.txt", "host.txt")  # these hold what granum itself requires, too
EXACT = re.compile(r"^[\w.-]+==[^\s,*;]+")


def main() -> int:
    """Check the lock of this repository; the exit status."""
    with open(os.path.join(tree.ROOT, "pyproject.toml"), "rb") as file:
        pyproject = tomllib.load(file)
    problems = []
    for name, groups in LOCKS.items():
        lock = os.path.join("requirements", name)
        with open(os.path.join(tree.ROOT, lock), encoding="utf-8") as file:
            wanted = [*requirements_of(pyproject, groups), *(requirements(pyproject) if name in OF_GRANUM else ())]
            problems += [f"{lock}: {problem}" for problem in complaints(wanted, file.read())]
    for problem in problems:
        print(problem, file=sys.stderr)
    if problems:
        print("lock: FAILED; run: make lock", file=sys.stderr)
    return 1 if problems else 0


def requirements(pyproject: dict[str, dict[str, object]]) -> Iterator[Requirement]:
    """Yield what `pyproject.toml` says that granum itself requires."""
    extras = pyproject["project"]["optional-dependencies"]
    assert isinstance(extras, dict)
    for texts in [pyproject["project"]["dependencies"], *extras.values()]:
        assert isinstance(texts, list)
        yield from map(Requirement, texts)


def requirements_of(pyproject: dict[str, dict[str, object]], groups: Iterable[str]) -> Iterator[Requirement]:
    """Yield what `pyproject.toml` says that the *groups* of development need; `build` stands for the build backend, too."""
    for name in groups:
        texts = pyproject["dependency-groups"][name]
        assert isinstance(texts, list)
        yield from map(Requirement, texts)
        if name == "build":
            backend = pyproject["build-system"]["requires"]
            assert isinstance(backend, list)
            yield from map(Requirement, backend)


def complaints(wanted: list[Requirement], lock: str) -> Iterator[str]:
    """Yield what is wrong with the text of a lock, as one line each."""
    entries = [entry for entry in lock.replace("\\\n", " ").splitlines() if entry and not entry.startswith("#")]
    pins: list[Requirement] = []
    for entry in entries:
        text, *hashes = entry.split(" --hash=sha256:")
        if entry.startswith("-") or "://" in entry:
            yield f"'{entry[:60]}' is an option or an address, and a lock has neither"
        elif not hashes or not EXACT.search(text):
            yield f"{text.strip()} has no hash or no exact version"
        else:
            pins.append(Requirement(text))
    for python in PYTHONS:
        locked = {
            canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in pins if holds(pin, python)
        }
        for requirement in wanted:
            version = locked.get(canonicalize_name(requirement.name))
            if holds(requirement, python) and (version is None or version not in requirement.specifier):
                yield f"pyproject.toml asks for {requirement}, and for Python {python} the lock has {version or 'nothing'}"


def holds(requirement: Requirement, python: str) -> bool:
    """Tell whether *requirement* counts on Linux with this *python*."""
    if requirement.marker is None:
        return True
    linux = {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "sys_platform": "linux",
        "platform_machine": "x86_64",
    }
    return requirement.marker.evaluate(linux)


if __name__ == "__main__":
    sys.exit(main())
