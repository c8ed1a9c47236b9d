"""What holds for every test: a property has no deadline and may be slow to draw, since CI's machines stall.

One that fails prints how to repeat it. A shell starts what goes to its background with SIGINT ignored, and programs under test
would inherit that; here they do not.
"""

import signal

from hypothesis import HealthCheck, settings

settings.register_profile("granum", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("granum")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
