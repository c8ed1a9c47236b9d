"""Install what the lab needs of Debian on this machine: `packages.txt`, the one list of it, for `make box` and `make lab-vm`."""

import sys
from pathlib import Path

from integration.vm.host import Unfit, install, listed

LIST = Path(__file__).with_name("packages.txt")


def main() -> None:
    """Install what is missing; end with 1 and the reason where that cannot be."""
    try:
        install(listed(LIST.read_text()))
    except Unfit as reason:
        sys.exit(f"lab: {reason}")


if __name__ == "__main__":
    main()
