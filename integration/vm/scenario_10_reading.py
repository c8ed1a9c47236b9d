"""The main job: a series from the client machine to all nodes, and the same digests by every way of reading it."""

from integration.vm.board import expect, scenario
from integration.vm.filming import Filming, differing, digests, verify_over_http
from integration.vm.lab import Lab
from integration.vm.places import CIFS, UNION, branch, mount_share, smbclient, sums

SERIES = "/proof/first"
FRAMES = 200


@scenario("stream", claims="nodes found by mDNS, a series on all of them, every frame right over HTTP", bound_s=300)
def stream(lab: Lab) -> str:
    """Stream from the client machine, which is told no address."""
    return _store(lab)


def stored_series(lab: Lab) -> dict[str, str]:
    """Return the SHA-256 of each frame's file of SERIES, which is stored now where no scenario has done so before."""
    if f"{SERIES}.pcs" not in lab.stored:
        _store(lab)
    return lab.stored[f"{SERIES}.pcs"]


def _store(lab: Lab) -> str:
    with Filming(lab, SERIES, FRAMES, 0.0) as filming:
        film = filming.finish(180)
    expect(len(film["nodes"]) == len(lab.nodes), f"found {film['nodes']}")
    holders = verify_over_http(lab, f"{SERIES}.pcs", FRAMES)
    expect(len(holders) == len(lab.nodes) and sum(holders.values()) == FRAMES, f"frames by node: {holders}")
    spread = " + ".join(map(str, holders.values()))
    return f"{FRAMES}/{FRAMES} frames ({spread}), found in {film['found_s']:.1f} s, stored in {film['seconds']:.1f} s"


@scenario("every way", claims="NFS, union, smbclient and cifs mount give the same digests", bound_s=300)
def every_way(lab: Lab) -> str:
    """Compare the branches, which are the NFS mounts, and what stands on them."""
    expected = stored_series(lab)
    branches: dict[str, str] = {}
    for node in lab.nodes:
        found = lab.run(lab.gateway, sums(f"{branch(node)}{SERIES}.pcs"))
        branches |= digests(found)
    ways = {
        "NFS": branches,
        "union": digests(lab.run(lab.gateway, sums(f"{UNION}{SERIES}.pcs"))),
    }
    fetched = "rm -rf /tmp/fetched && mkdir /tmp/fetched && cd /tmp/fetched"
    get = smbclient(lab, f"prompt OFF; cd {SERIES[1:]}.pcs; mget frame*.pzf")
    ways["smbclient"] = digests(lab.run(lab.client, f"{fetched} && {get} >&2 && sha256sum *"))
    mount_share(lab)
    ways["cifs"] = digests(lab.run(lab.client, sums(f"{CIFS}{SERIES}.pcs")))
    for way, seen in ways.items():
        wrong = differing(expected, seen)
        expect(not wrong, f"{way}: {len(wrong)} of {len(expected)} frames differ or miss: {wrong[:3]}")
    return f"{len(expected)} frames by each of {', '.join(ways)}"
