"""Everything boots again, and nobody does anything."""

import time
from functools import partial

from integration.vm.board import expect, scenario
from integration.vm.filming import differing, digests, verify_over_http
from integration.vm.lab import Lab, wait_until
from integration.vm.places import CIFS, UNION, mount_share, sums
from integration.vm.scenario_10_reading import stored_series

WHOLE_S = 120.0  # for union and share to be whole once every machine answers; booting goes on for a while behind ssh


@scenario(
    "reboot", claims="after a reboot of every machine the cluster and the share come back by themselves", bound_s=600
)
def reboot(lab: Lab) -> str:
    """Then every frame that any scenario stored is read again, from the share and over HTTP."""
    stored_series(lab)
    frames_stored = sum(map(len, lab.stored.values()))
    lab.reboot(lab.topology.machines)
    begun = time.monotonic()
    count = f"cd {UNION} && find {' '.join(path[1:] for path in lab.stored)} -name 'frame*.pzf' | wc -l"
    lab.wait_for(lab.gateway, f'sudo sh -c "{count}"', WHOLE_S, "the union is whole", prints=str(frames_stored))
    whole_s = time.monotonic() - begun
    wait_until(partial(_mounts, lab), WHOLE_S, "the share can be mounted")
    for path, frames in lab.stored.items():
        verify_over_http(lab, path, len(frames))
        found = digests(lab.run(lab.client, sums(f"{CIFS}{path}"), timeout_s=300))
        expect(not (wrong := differing(frames, found)), f"{path} through the share: {wrong[:3]}")
    return f"whole {whole_s:.0f} s after the last machine answered; {frames_stored} frames right over HTTP and share"


def _mounts(lab: Lab) -> bool:
    try:
        mount_share(lab)
    except RuntimeError:
        return False
    return True
