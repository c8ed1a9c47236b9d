"""Benchmarks: tables that set granum beside its peers and beside what the machine can do, measured in the same run."""
