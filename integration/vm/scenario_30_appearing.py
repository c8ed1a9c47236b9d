"""Names that were looked up too early, and directories that spread over nodes while somebody looks."""

import time

from integration.vm.board import expect, scenario
from integration.vm.lab import Lab
from integration.vm.places import CIFS, UNION, mount_share, url

FILES = 20
SEEN_S = 5.0  # a person who waits for a file looks again about then


@scenario("appearing file", claims="after a failed look-up a new file shows in union and share within 5 s", bound_s=300)
def appearing_file(lab: Lab) -> str:
    """Each file is put on another node than the one before."""
    mount_share(lab)
    latest = {"union": 0.0, "share": 0.0}
    lab.run(lab.client, "echo content > /tmp/content")
    for number in range(FILES):
        path = f"/appear/file{number}"
        places = (("union", lab.gateway, UNION), ("share", lab.client, CIFS))
        for _, machine, top in places:
            lab.run(machine, f"! sudo test -e {top}{path}")
        target = url(lab.nodes[number % len(lab.nodes)], path)
        lab.run(lab.client, f"curl -sS --fail -T /tmp/content {target}")
        begun = time.monotonic()
        for name, machine, top in places:
            left = SEEN_S - (time.monotonic() - begun)
            lab.wait_for(machine, f"sudo grep -qs content {top}{path}", left, f"{path} shows in the {name}")
            latest[name] = max(latest[name], time.monotonic() - begun)
    return (
        f"{FILES}/{FILES}, the latest after {latest['union']:.1f} s in the union, {latest['share']:.1f} s in the share"
    )


@scenario("appearing directory", claims="a directory that appears on a second node merges", bound_s=60)
def appearing_directory(lab: Lab) -> str:
    """List the first half before the second exists, on another node."""
    first, second = lab.nodes[:2]
    names = {"first": first, "second": second}
    for number, (name, node) in enumerate(names.items()):
        lab.run(lab.client, f"echo {name} > /tmp/{name} && curl -sS --fail -T /tmp/{name} {url(node, f'/grow/{name}')}")
        listed = "\n".join(sorted(list(names)[: number + 1]))
        lab.wait_for(lab.gateway, f"sudo ls {UNION}/grow", SEEN_S, f"the union lists {name}", prints=listed)
    contents = lab.run(lab.gateway, f"sudo cat {UNION}/grow/first {UNION}/grow/second").split()
    expect(contents == ["first", "second"], f"the union holds {contents}")
    return "both halves listed and read"
