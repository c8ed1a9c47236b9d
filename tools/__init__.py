"""What keeps the house: setup, lock and the checks that `make` calls."""
