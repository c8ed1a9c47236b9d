"""What holds for every test: a property has no deadline, since CI's machines stall, and a failing one prints how to repeat it."""

from hypothesis import settings

settings.register_profile("granum", deadline=None, print_blob=True)
settings.load_profile("granum")
