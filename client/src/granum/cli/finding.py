"""Findings: what the checks of `granum doctor` say. Pure; the checks stand in `diagnosis` and `gateway`."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from granum.cli.seen import Seen

OK, WRONG, SKIPPED = "ok", "wrong", "skipped"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One sentence of a check. It is wrong when there is a *remedy*."""

    text: str
    remedy: str = ""
    is_skipped: bool = False


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: the name of the *check*, how it went, what was seen and, when it is wrong, the *remedy*."""

    check: str
    state: str
    text: str
    remedy: str = ""


Check = Callable[[Seen], Iterator[Verdict]]


def wrong(text: str, remedy: str) -> Verdict:
    """Return a verdict that something is wrong."""
    return Verdict(text, remedy)


def skipped(text: str) -> Verdict:
    """Return a verdict that nothing was looked at, and why."""
    return Verdict(text, is_skipped=True)


def findings(checks: Mapping[str, Check], seen: Seen) -> list[Finding]:
    """Return what *checks* find in *seen*, in their order, at least one finding for each.

    What is well beside something wrong is no news, and left out.
    """
    found = []
    for name, check in checks.items():
        verdicts = list(check(seen))
        is_bad = any(verdict.remedy for verdict in verdicts)
        for verdict in verdicts:
            state = WRONG if verdict.remedy else SKIPPED if verdict.is_skipped else OK
            if state == WRONG or not is_bad:
                found.append(Finding(name, state, verdict.text, verdict.remedy))
    return found
