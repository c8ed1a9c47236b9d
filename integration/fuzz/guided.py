"""One target under the coverage-guided fuzzer, until it fails or its time is over; run by `integration.fuzz.run`.

It needs atheris on the path. The modules that it looks into are imported here and not above: only what is imported while
atheris watches tells which of its branches an input has reached.

    python -m integration.fuzz.guided TARGET [libFuzzer's options and corpus]
"""

import sys

import atheris

with atheris.instrument_imports(include=["granum", "granum_node", "integration.fuzz"]):
    from integration.fuzz.targets import PLANTED_TARGET, TARGETS


def main() -> None:
    """Fuzz the target named first until the options say that it is enough."""
    name, *options = sys.argv[1:]
    target = {**TARGETS, "planted": PLANTED_TARGET}[name]
    atheris.Setup([sys.argv[0], *options], target.check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
