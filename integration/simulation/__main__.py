"""Run seeds, each in a process of its own, and say which do not hold: `python -m integration.simulation --seeds 200`."""

from integration.simulation.many import main

if __name__ == "__main__":
    main()
