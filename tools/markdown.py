"""Read a Markdown document as blocks, links and anchors, each with its line.

Pure: text in, values out. It knows the checker's directives, HTML comments of the form `<!-- check: … -->`, for a whole page or
right above a fenced block, and refuses those it does not know, so that a typing mistake does not switch a check off. It does not
know how a block is run, nor whether a link's target exists.
"""

import re
from dataclasses import dataclass
from urllib.parse import unquote

DIRECTIVE = re.compile(r"\s*<!--\s*check:\s*(?P<verb>\w+)\s*(?P<argument>.*?)\s*-->\s*")
FENCE = re.compile(r"(?P<indent>\s*)(?P<fence>`{3,}|~{3,})\s*(?P<language>[\w+-]*)[^`]*")
HEADING = re.compile(r"#{1,6}\s+(?P<title>.*?)\s*#*\s*")
ANCHOR = re.compile(r"""<a\s+(?:id|name)=["'](?P<name>[^"']+)["']""")
LINK = re.compile(
    r"\]\(\s*<?(?P<inline>[^\s()<>]+(?:\([^\s()]*\))?)>?(?:\s+[\"'][^)]*)?\)|^\s*\[[^\]^]+\]:\s+<?(?P<reference>[^\s>]+)"
)
CODE_SPAN = re.compile(r"(?P<ticks>`+)(?!`).*?(?<!`)(?P=ticks)(?!`)")

VERBS_WITH_ARGUMENT = {"skip": "a reason", "needs": "the programs it calls"}
VERBS_ALONE = {"fails", "output"}


class BadDocument(ValueError):
    """The document cannot be read; the text says where and what to write instead."""


@dataclass(frozen=True, slots=True)
class Directive:
    """What the comment above a block asks of the checker: a verb and, for some verbs, its argument."""

    verb: str
    argument: str


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block: its language, its text without the fences, the line of its first text line, its directive."""

    language: str
    lines: tuple[str, ...]
    line: int
    directive: Directive | None

    def asks(self, verb: str) -> bool:
        """Tell whether the directive above the block is *verb*."""
        return self.directive is not None and self.directive.verb == verb


@dataclass(frozen=True, slots=True)
class Command:
    """One command of a console block: what is typed, the output that the document shows, the line of the prompt."""

    text: str
    expected: str
    line: int


@dataclass(frozen=True, slots=True)
class Link:
    """A link to another place in the same repository: path and anchor, either may be empty."""

    path: str
    anchor: str
    line: int


def blocks(text: str) -> list[Block]:
    """Read every fenced block of a document, in order."""
    return _read(text)[0]


def needs(text: str) -> list[str]:
    """List the programs without which no command of the page can be run: those named away from any block."""
    return _read(text)[1]


def _read(text: str) -> tuple[list[Block], list[str]]:
    found: list[Block] = []
    needed: list[str] = []
    directive: Directive | None = None
    lines = enumerate(text.splitlines(), start=1)
    for number, line in lines:
        if match := DIRECTIVE.fullmatch(line):
            directive = _directive(match["verb"], match["argument"], number)
        elif fence := FENCE.fullmatch(line):
            body: list[str] = []
            for _, inner in lines:
                if inner.strip().startswith(fence["fence"]) and not inner.strip().strip(fence["fence"][0]):
                    break
                body.append(inner.removeprefix(fence["indent"]))
            else:
                raise BadDocument(f"{number}: this fenced block is never closed")
            found.append(Block(fence["language"], tuple(body), number + 1, directive))
            directive = None
        elif line.strip() and directive is not None:
            if directive.verb != "needs":
                raise BadDocument(f"{number}: a check comment belongs right above a fenced block")
            needed += directive.argument.split()
            directive = None
    return found, needed


def _directive(verb: str, argument: str, line: int) -> Directive:
    if verb in VERBS_WITH_ARGUMENT and not argument:
        raise BadDocument(f"{line}: 'check: {verb}' needs {VERBS_WITH_ARGUMENT[verb]}")
    if verb not in VERBS_WITH_ARGUMENT and (verb not in VERBS_ALONE or argument):
        raise BadDocument(
            f"{line}: unknown directive 'check: {verb} {argument}'".rstrip() + "; known: skip, needs, fails, output"
        )
    return Directive(verb, argument)


def commands(block: Block) -> list[Command]:
    """Read the commands of a console block; lines after a backslash or beginning with `> ` continue the command."""
    found: list[Command] = []
    typed: list[str] = []
    shown: list[str] = []
    start = block.line

    def finish() -> None:
        if typed:
            found.append(Command("\n".join(typed), "\n".join(shown).strip(), start))

    for number, line in enumerate(block.lines, start=block.line):
        if line.startswith("$ "):
            finish()
            typed, shown, start = [line.removeprefix("$ ")], [], number
        elif not typed:
            raise BadDocument(f"{number}: a console block begins with a line that begins with '$ '")
        elif not shown and (line.startswith("> ") or line == ">" or typed[-1].endswith("\\")):
            typed.append(line.removeprefix(">").removeprefix(" ") if line.startswith(">") else line)
        else:
            shown.append(line.rstrip())
    finish()
    return found


def links(text: str) -> list[Link]:
    """Read every link that stays in the repository; links with a scheme are left out."""
    found: list[Link] = []
    for number, line in _prose(text):
        for match in LINK.finditer(CODE_SPAN.sub("", line)):
            target = match["inline"] or match["reference"]
            if not re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", target):
                path, _, anchor = target.partition("#")
                found.append(Link(unquote(path), unquote(anchor), number))
    return found


def anchors(text: str) -> set[str]:
    """Collect every name that a link's `#…` can lead to: headings as code hosts spell them, and explicit `<a id=…>`."""
    found: set[str] = set()
    for _, line in _prose(text):
        found.update(match["name"] for match in ANCHOR.finditer(line))
        if heading := HEADING.fullmatch(line):
            title = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading["title"])
            plain = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
            repeats = (f"{plain}-{count}" if count else plain for count in range(len(found) + 1))
            found.add(next(name for name in repeats if name not in found))
    return found


def _prose(text: str) -> list[tuple[int, str]]:
    """List the numbered lines outside of fenced blocks."""
    inside: set[int] = set()
    for block in blocks(text):
        inside.update(range(block.line - 1, block.line + len(block.lines) + 1))
    return [(number, line) for number, line in enumerate(text.splitlines(), start=1) if number not in inside]
