"""Write the files in `requirements/`, every package of each pinned and hashed.

`lock.txt` is what development needs, `host.txt` the part of it that granum needs on the machines that it is installed on,
`fuzz.txt` what fuzzing needs, `deploy.txt` what puts granum onto machines. Each serves Python 3.11 and later on Linux, x86-64
and arm64. The rule: pins stay unless a requirement or `--upgrade` moves them, and no file names a package index, so every
machine fetches from its own. uv does the solving; it is fetched for the moment that it runs, since nothing else needs it.
"""

import os
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LOCKS = {
    "lock.txt": ("pyproject.toml", "--group", "dev", "--group", "build"),
    "host.txt": ("pyproject.toml", "--constraint", "requirements/lock.txt"),  # after lock.txt, whose pins it keeps
    "fuzz.txt": ("--group", "pyproject.toml:fuzz"),
    "deploy.txt": ("--group", "pyproject.toml:deploy"),
}
HEADERS = {
    "lock.txt": "The packages of .venv",
    "host.txt": "What granum needs on the machines that it is installed on",
    "fuzz.txt": "What `make fuzz` fetches",
    "deploy.txt": "What `make deploy-tools` fetches",
}
HEADER = """\
# {}, pinned and hashed, for Python 3.11 and later on Linux.
# Made from pyproject.toml by `make lock`; do not edit.
"""

# `--no-config` keeps a private index or mirror of the person who runs it out of the answer, and with it foreign hashes.
COMPILE = (
    *("uv", "--no-config", "--system-certs", "pip", "compile", "--quiet", "--universal", "--python-version", "3.11"),
    *("--generate-hashes", "--no-header", "--no-annotate", "--no-emit-index-url", "--no-emit-find-links"),
)


def main(arguments: list[str]) -> int:
    """Solve, then replace the locks; *arguments* (such as `--upgrade`) go to uv. The exit status."""
    with tempfile.TemporaryDirectory(prefix="granum-lock-") as scratch:
        pip = (sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
        subprocess.run((*pip, "--target", scratch, "--group", "lock"), cwd=ROOT, check=True)
        for name, source in LOCKS.items():
            lock, solved = os.path.join(ROOT, "requirements", name), os.path.join(scratch, name)
            if os.path.exists(lock):
                with open(lock, encoding="utf-8") as old, open(solved, "w", encoding="utf-8") as preferences:
                    preferences.write(old.read())
            command = (
                os.path.join(scratch, "bin", COMPILE[0]),
                *COMPILE[1:],
                *source,
                "--output-file",
                solved,
                *arguments,
            )
            subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
            with open(solved, encoding="utf-8") as result, open(lock, "w", encoding="utf-8") as file:
                file.write(HEADER.format(HEADERS[name]) + result.read())
            print(f"lock: wrote {os.path.relpath(lock, ROOT)}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except subprocess.CalledProcessError:
        sys.exit("lock: FAILED, this lock is as it was (the reason stands above)")
