"""Make the environment of the deployment tools: ansible-core, ansible-lint, molecule, and mitogen for the lab.

It lies below `build/deploy` and holds what `requirements/deploy.txt` pins, hash for hash. Nothing of it comes into `.venv`, and
nothing of granum into it: a playbook needs granum on the machines that it installs, not where it runs.
"""

import sys
from pathlib import Path

from tools.environments import NotMade, environment

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "requirements" / "deploy.txt"
ENVIRONMENT = ROOT / "build" / "deploy" / "tools"
LOCKED = ("--require-hashes", "--only-binary", ":all:", "--requirement", str(LOCK))


def tools() -> Path:
    """Return the directory of the commands, `ansible-playbook` among them; raise NotMade when pip cannot fetch them."""
    return environment(ENVIRONMENT, LOCK.read_text(encoding="utf-8"), [LOCKED])


def main() -> None:
    """Make the environment and say where it is; end with 1 and the reason when it cannot be had."""
    try:
        print(tools())
    except NotMade as reason:
        sys.exit(f"deploy-tools: {reason}")


if __name__ == "__main__":
    main()
