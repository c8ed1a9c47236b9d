"""Check, without the network, that `requirements/lock.txt` and `fuzz.txt` are what `pyproject.toml` asks for.

Every requirement must have its pin on every Python that granum supports, every pin its hashes, and no line may name an index.
It does not solve anything: whether newer versions exist is the business of `make lock`.
"""

import os
import re
import sys
import tomllib
from collections.abc import Iterator

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools import tree

LOCK = os.path.join("requirements", "lock.txt")
FUZZ_LOCK = os.path.join("requirements", "fuzz.txt")
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
LOCKED_GROUPS = ("dev", "build")
EXACT = re.compile(r"^[\w.-]+==[^\s,*;]+")


def main() -> int:
    """Check the lock of this repository; the exit status."""
    with open(os.path.join(tree.ROOT, "pyproject.toml"), "rb") as file:
        pyproject = tomllib.load(file)
    problems = []
    for lock, wanted in ((LOCK, requirements(pyproject)), (FUZZ_LOCK, requirements_of_fuzzing(pyproject))):
        with open(os.path.join(tree.ROOT, lock), encoding="utf-8") as file:
            problems += [f"{lock}: {problem}" for problem in complaints(list(wanted), file.read())]
    for problem in problems:
        print(problem, file=sys.stderr)
    if problems:
        print("lock: FAILED; run: make lock", file=sys.stderr)
    return 1 if problems else 0


def requirements(pyproject: dict[str, dict[str, object]]) -> Iterator[Requirement]:
    """Yield everything that `pyproject.toml` says must be in `.venv`."""
    project, groups = pyproject["project"], pyproject["dependency-groups"]
    extras = project["optional-dependencies"]
    assert isinstance(extras, dict)
    lists = [project["dependencies"], *extras.values(), *(groups[name] for name in LOCKED_GROUPS)]
    for texts in [*lists, pyproject["build-system"]["requires"]]:
        assert isinstance(texts, list)
        yield from map(Requirement, texts)


def requirements_of_fuzzing(pyproject: dict[str, dict[str, object]]) -> Iterator[Requirement]:
    """Yield what `pyproject.toml` says that fuzzing needs."""
    texts = pyproject["dependency-groups"]["fuzz"]
    assert isinstance(texts, list)
    yield from map(Requirement, texts)


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
