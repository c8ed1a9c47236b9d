"""Write `requirements/lock.txt`: every package that development needs, pinned and hashed.

One file serves Python 3.11 and later on Linux, x86-64 and arm64. The rule: pins stay unless a requirement or `--upgrade`
moves them, and the file names no package index, so every machine fetches from its own. uv does the solving; it is fetched
for the moment that it runs, since nothing else needs it.
"""

import os
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LOCK = os.path.join(ROOT, "requirements", "lock.txt")
HEADER = """\
# The packages of .venv, pinned and hashed, for Python 3.11 and later on Linux.
# Made from pyproject.toml by `make lock`; do not edit.
"""

# `--no-config` keeps a private index or mirror of the person who runs it out of the answer, and with it foreign hashes.
COMPILE = (
    *("uv", "--no-config", "--system-certs", "pip", "compile", "pyproject.toml", "--quiet"),
    *("--group", "dev", "--group", "build", "--universal", "--python-version", "3.11"),
    *("--generate-hashes", "--no-header", "--no-annotate", "--no-emit-index-url", "--no-emit-find-links"),
)


def main(arguments: list[str]) -> int:
    """Solve, then replace the lock; *arguments* (such as `--upgrade`) go to uv. The exit status."""
    with tempfile.TemporaryDirectory(prefix="granum-lock-") as scratch:
        pip = (sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
        subprocess.run((*pip, "--target", scratch, "--group", "lock"), cwd=ROOT, check=True)
        solved = os.path.join(scratch, "lock.txt")
        if os.path.exists(LOCK):
            with open(LOCK, encoding="utf-8") as old, open(solved, "w", encoding="utf-8") as preferences:
                preferences.write(old.read())
        command = (os.path.join(scratch, "bin", COMPILE[0]), *COMPILE[1:], "--output-file", solved, *arguments)
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        with open(solved, encoding="utf-8") as result, open(LOCK, "w", encoding="utf-8") as lock:
            lock.write(HEADER + result.read())
    print(f"lock: wrote {os.path.relpath(LOCK, ROOT)}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except subprocess.CalledProcessError:
        sys.exit("lock: FAILED, the lock is as it was (the reason stands above)")
