"""Labs, scenarios and benchmarks over the whole product; not part of the distribution."""
