"""The nodes move to a newer build and back while a series is being streamed."""

import json

from integration.vm.board import expect, scenario
from integration.vm.filming import Filming, verify_over_http
from integration.vm.lab import Lab

FRAMES_MAX = 1500  # at one a second: 25 minutes, which nothing here may take


@scenario("upgrade", claims="one node after the other, and back, under a stream: no frame lost, no error", bound_s=900)
def upgrade(lab: Lab) -> str:
    """Move to the build with the lab's label, then back, which is the way back after a bad one, too."""
    assert lab.ansible is not None
    before = _versions(lab)
    expect(len(set(before.values())) == 1, f"the nodes run {before}")
    old = next(iter(before.values()))
    new = f"{old}+{lab.newer}"
    with Filming(lab, "/proof/upgrade", FRAMES_MAX, 1.0, open_end=True) as filming:
        for version in (new, old):
            lab.ansible.play("playbooks/upgrade.yml", granum_version=version)
            now = _versions(lab)
            expect(
                set(now.values()) == {version} and now.keys() == before.keys(), f"wanted {version}, the nodes run {now}"
            )
            expect(filming.running, "the stream ended meanwhile")
        film = filming.finish(120)
    holders = verify_over_http(lab, "/proof/upgrade.pcs", film["frames"])
    spread = " + ".join(map(str, holders.values()))
    return f"{old} to {new} and back, {film['frames']} frames ({spread})"


def _versions(lab: Lab) -> dict[str, str]:
    """Return the version of each node, as the client machine sees it."""
    printed = lab.run(lab.client, f"granum --wait {len(lab.nodes)} --json nodes")
    return {node["name"]: node["version"] for node in json.loads(printed)}
