"""Run what the documents show, and follow their links.

The commands of every ```console block and the ```python snippets of README.md and docs/ run in the order of the page, in one
scratch directory and one shell for each document. The directory looks like the checkout that a reader stands in, and new files
stay in it. What is printed must be what the page shows, `...` standing for anything.
Links inside the repository must lead somewhere, in every Markdown file. A comment right above a block changes how it is run:

    <!-- check: skip REASON -->      not run, but counted, with its reason
    <!-- check: needs PROGRAM … -->  run where these programs are installed, else skipped and counted
    <!-- check: fails -->            the last command must exit with an error
    <!-- check: output -->           above a ```text block: what the python snippet before it prints

`needs` that does not stand right above a block is for the whole document.

A command that ends in `&` stays up for the rest of its document, and is waited for until it has printed what the page shows.
"""

import os
import re
import select
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from tools import markdown, tree
from tools.markdown import BadDocument, Block, Command
from tools.shell import POLL_S, Shell, ShellFailed

# A command of a page is something a reader waits for; the longest, streaming a small movie, takes a few seconds.
COMMAND_S = 60.0
# A daemon says that it is up within a second; the rest is room for a loaded machine.
READY_S = 15.0
CHECKED = ("console", "python")
# Languages that look runnable and would silently not be checked.
UNCHECKED = ("bash", "sh", "shell", "shell-session", "pycon", "zsh")


class Mismatch(Exception):
    """A document does not tell the truth; the text says where, what was expected and what came."""


@dataclass(slots=True)
class Tally:
    """What was run and what was skipped, for the closing line."""

    commands: int = 0
    snippets: int = 0
    links: int = 0
    skipped: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to run: the command as typed, what it must print (None: anything), whether it must fail."""

    command: Command
    typed: str
    expected: str | None
    fails: bool


def main() -> int:
    """Check every document of the repository; the exit status."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that `with` ends what was started
    tally, failures = Tally(), []
    for name in tree.files(".md"):
        try:
            tally.links += check_links(tree.ROOT, name)
            if name == "README.md" or name.startswith("docs/"):
                check_document(os.path.join(tree.ROOT, name), name, tally)
        except Mismatch as mismatch:
            failures.append(str(mismatch))
        except BadDocument as bad:
            failures.append(f"{name}:{bad}")
    for reason in tally.skipped:
        print(f"docs: skipped {reason}")
    for failure in failures:
        print(f"docs: FAILED {failure}", file=sys.stderr)
    counts = f"{tally.commands} commands, {tally.snippets} snippets, {tally.links} links, {len(tally.skipped)} skipped"
    print(f"docs: {counts}" + (f", {len(failures)} documents FAILED" if failures else ""))
    return 1 if failures else 0


# -- running ---------------------------------------------------------------------------------------------------------


def check_document(path: str, name: str, tally: Tally) -> None:
    """Run one document from top to bottom and stop at the first thing that is not as it says: Mismatch."""
    with open(path, encoding="utf-8") as file:
        text = file.read()
    blocks = markdown.blocks(text)
    if reason := absent(markdown.needs(text)):
        tally.skipped.append(f"{name}, the whole page: {reason}")
        return
    with (
        tempfile.TemporaryDirectory(prefix="granum-docs-", ignore_cleanup_errors=True) as scratch,
        Shell(scratch, tree.ROOT) as shell,
    ):
        for index, block in enumerate(blocks):
            following = blocks[index + 1] if index + 1 < len(blocks) else None
            if reason := reason_to_skip(block):
                tally.skipped.append(f"{name}:{block.line} {reason}")
            elif block.language == "console":
                for step in console_steps(block):
                    run_step(step, shell, name)
                    tally.commands += 1
            elif block.language == "python":
                run_step(snippet_step(block, following, scratch), shell, name)
                tally.snippets += 1
            elif block.language in UNCHECKED:
                hint = "write ```console with '$ ' before each command, or say above it <!-- check: skip REASON -->"
                raise BadDocument(f"{block.line}: a ```{block.language} block is not checked; {hint}")


def reason_to_skip(block: Block) -> str:
    """Say why a block is not run, or nothing."""
    if block.directive is None or block.asks("fails") or block.asks("output"):
        return ""
    return block.directive.argument if block.asks("skip") else absent(block.directive.argument.split())


def absent(programs: list[str]) -> str:
    """Say which of *programs* this machine lacks, or nothing."""
    missing = [program for program in programs if shutil.which(program) is None]
    return f"{', '.join(missing)} not installed" if missing else ""


def console_steps(block: Block) -> Iterator[Step]:
    """Yield the commands of a console block; only the last one may be meant to fail."""
    found = markdown.commands(block)
    for command in found:
        daemon_says_nothing = in_background(command.text) and not command.expected
        expected = None if daemon_says_nothing else command.expected
        yield Step(command, command.text, expected, fails=block.asks("fails") and command is found[-1])


def snippet_step(block: Block, following: Block | None, scratch: str) -> Step:
    """Make a python block a command: the script is written to *scratch* and run by the document's own shell."""
    script = os.path.join(scratch, f"line_{block.line}.py")
    with open(script, "w", encoding="utf-8") as file:
        file.write("\n".join(block.lines) + "\n")
    shown = following if following is not None and following.asks("output") else None
    expected = None if shown is None else "\n".join(line.rstrip() for line in shown.lines).strip()
    command = Command("the python snippet", expected or "", block.line)
    return Step(command, f"python {shlex.quote(script)}", expected, fails=block.asks("fails"))


def run_step(step: Step, shell: Shell, name: str) -> None:
    """Run one step and compare: Mismatch when status or output are not as the document says."""
    place = f"{name}:{step.command.line}\n  $ " + step.command.text.replace("\n", "\n    ")
    try:
        status, output = shell.run(step.typed, COMMAND_S)
    except ShellFailed as failed:
        raise Mismatch(f"{place}\n  {failed}") from None
    got = printed(output)
    if step.expected is not None and in_background(step.typed):
        deadline = time.monotonic() + READY_S
        while not matches(step.expected, got) and time.monotonic() < deadline:
            select.select([], [], [], POLL_S)
            got = printed(output)
    if (status != 0) != step.fails:
        wanted = "an error" if step.fails else "0"
        raise Mismatch(f"{place}\n  exit status: expected {wanted}, got {status}; it printed:\n{indented(got)}")
    if step.expected is not None and not matches(step.expected, got):
        raise Mismatch(f"{place}\n  expected:\n{indented(step.expected)}\n  got:\n{indented(got)}")


def in_background(command: str) -> bool:
    """Tell whether bash returns from *command* before it ends."""
    return re.search(r"(?<!&)&\s*$", command) is not None


def matches(expected: str, got: str) -> bool:
    """Tell whether *got* is *expected*, `...` standing for any text, also none."""
    pattern = ".*".join(re.escape(part) for part in expected.split("..."))
    return re.fullmatch(pattern, got, re.DOTALL) is not None


def printed(path: str) -> str:
    """Return what a command has printed so far, without blank edges."""
    with open(path, encoding="utf-8", errors="replace") as file:
        return "\n".join(line.rstrip() for line in file.read().splitlines()).strip()


def indented(text: str) -> str:
    """Return text as the report shows it."""
    return "\n".join(f"    | {line}" for line in text.splitlines()) or "    (nothing)"


# -- links -----------------------------------------------------------------------------------------------------------


def check_links(root: str, name: str) -> int:
    """Follow the links of one document inside the repository; how many there are. Mismatch when one leads nowhere."""
    with open(os.path.join(root, name), encoding="utf-8") as file:
        text = file.read()
    found = markdown.links(text)
    for link in found:
        base = root if link.path.startswith("/") else os.path.dirname(os.path.join(root, name))
        target = os.path.normpath(os.path.join(base, link.path.lstrip("/"))) if link.path else os.path.join(root, name)
        if not os.path.exists(target) or os.path.commonpath((root, target)) != root:
            raise Mismatch(f"{name}:{link.line} links to {link.path}, which is not in the repository")
        if link.anchor and target.endswith(".md"):
            with open(target, encoding="utf-8") as file:
                if link.anchor not in markdown.anchors(file.read()):
                    raise Mismatch(
                        f"{name}:{link.line} links to #{link.anchor}, and {os.path.relpath(target, root)} has no such heading"
                    )
    return len(found)


if __name__ == "__main__":
    sys.exit(main())
