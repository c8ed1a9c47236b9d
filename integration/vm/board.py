"""The scenarios of the lab: what each must show, how long it may take, and the table of what they showed.

A scenario gets the running lab and returns its figure in one line; it raises Broken, or anything else, when the promise
does not hold. Whether it held is all that this module knows of it.
"""

import math
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from integration.vm.lab import Lab

RING_AGAIN_S = 5.0  # a signal that comes right before a system call which waits is not seen until the next one

Check = Callable[["Lab"], str]


class Broken(Exception):
    """A promise does not hold; the text says what was seen instead."""


class Late(Exception):
    """Something took longer than it may."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One promise on real machines: its *name*, what it *claims*, after how many seconds it has failed, and the check."""

    name: str
    claims: str
    bound_s: float
    check: Check


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one scenario; *said* is its figure, or why it does not hold."""

    scenario: Scenario
    held: bool
    seconds: float
    said: str
    details: str = ""


SCENARIOS: dict[str, Scenario] = {}


def scenario(name: str, *, claims: str, bound_s: float) -> Callable[[Check], Check]:
    """Register the decorated check as the scenario *name*, behind those registered before."""

    def register(check: Check) -> Check:
        if name in SCENARIOS:
            raise ValueError(f"there is a scenario {name!r} already")
        SCENARIOS[name] = Scenario(name, claims, bound_s, check)
        return check

    return register


def expect(held: object, otherwise: str) -> None:
    """Raise Broken with *otherwise* unless *held*."""
    if not held:
        raise Broken(otherwise)


def judge(each: Scenario, lab: "Lab", left_s: float = math.inf) -> Verdict:
    """Run one scenario within its bound, and within *left_s*, which is what the whole run has left."""
    begun = time.monotonic()
    try:
        with within(min(each.bound_s, left_s), each.name):
            figure = each.check(lab)
    except (Exception, Late) as error:  # noqa: BLE001 - whatever it is, the others are run and the machines destroyed
        said = str(error) if isinstance(error, Broken | Late | TimeoutError) else f"{type(error).__name__}: {error}"
        return Verdict(each, held=False, seconds=time.monotonic() - begun, said=said, details=traceback.format_exc())
    return Verdict(each, held=True, seconds=time.monotonic() - begun, said=figure)


@contextmanager
def within(bound_s: float, what: str) -> Iterator[None]:
    """Raise Late inside when it takes longer than *bound_s*. In the main thread only, and one at a time."""

    def ring(_number: int, _frame: FrameType | None) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)  # once: what tidies up behind it takes its time
        raise Late(f"{what} took longer than {bound_s:.0f} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, max(0.001, bound_s), RING_AGAIN_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def table(steps: Sequence[tuple[str, float]], verdicts: Sequence[Verdict]) -> str:
    """Return the times of *steps* and what became of each scenario, one a line, and the closing line."""
    width = max([len(each.scenario.name) for each in verdicts] + [len(name) for name, _ in steps] + [8])
    lines = [f"{name:{width}}  {seconds:6.1f} s" for name, seconds in steps]
    for each in verdicts:
        word = "holds" if each.held else "FAILS"
        lines.append(
            f"{each.scenario.name:{width}}  {each.seconds:6.1f} s  {word}  {each.scenario.claims}: {each.said}"
        )
    held = sum(each.held for each in verdicts)
    return "\n".join([*lines, f"{held}/{len(verdicts)} scenarios hold"])
