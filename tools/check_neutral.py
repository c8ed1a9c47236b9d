"""Check that no file says where it was made: no host name of a package index, no home directory of a build machine.

Clones are used in labs that have mirrors of their own, and a name that stands in a file is followed there. The patterns are
written so that this file does not contain what it looks for.
"""

import os
import re
import sys
from collections.abc import Iterator

from tools import tree

PATTERNS = {
    "a package index": re.compile(
        r"\b(?:pypi|pythonhosted|npmjs|yarnpkg|debian|ubuntu|docker|quay|crates|rubygems|golang|maven|conda|anaconda"
        r"|galaxy\.ansible|vagrantup|vagrantcloud)\.(?:org|io|com|net)\b",
        re.IGNORECASE,
    ),
    "a directory of a build machine": re.compile(r"(?<![\w.$}~/])/(?:work|root|home/[\w.-]+|Users/[\w.-]+)/"),
}


def main() -> int:
    """Check every text file of this repository; the exit status."""
    problems = [problem for name in tree.files() for problem in complaints(name, text_of(name))]
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


def complaints(name: str, text: str) -> Iterator[str]:
    """Yield the lines of *text* that name a place they should not know."""
    for number, line in enumerate(text.splitlines(), start=1):
        for what, pattern in PATTERNS.items():
            if match := pattern.search(line):
                yield f"{name}:{number} names {what}: {match[0]}"


def text_of(name: str) -> str:
    """Read a file of the repository, nothing when it is not text."""
    with open(os.path.join(tree.ROOT, name), "rb") as file:
        content = file.read()
    try:
        return "" if b"\0" in content else content.decode()
    except UnicodeDecodeError:
        return ""


if __name__ == "__main__":
    sys.exit(main())
