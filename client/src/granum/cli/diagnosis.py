"""Diagnosis: what is wrong with a cluster, as seen from one machine, and what to do about it.

Pure. Each check looks at what was seen and yields what it finds wrong; a check that finds nothing says in one line what it looked
at, or why it did not look. Those of gateways stand in `gateway`.
"""

from collections.abc import Iterator
from ipaddress import IPv4Address

from granum.cli.finding import Check, Finding, Verdict, findings, skipped, wrong
from granum.cli.gateway import mounts, share
from granum.cli.output import count_text, size_text
from granum.cli.rates import number, part
from granum.cli.seen import LIST, MDNS, REGISTRY, Answer, Found, Seen
from granum.room import room_of

SKEW_MAX_S = (
    2.0  # files made on two machines can then still be told apart by their dates when one was made after the other
)
LOW_SHARE = 0.05  # of a disk: a day's notice at least, for a camera of 100 MB/s on four disks of 50 TB


# -- finding each other ----------------------------------------------------------------------------------------------


def multicast(seen: Seen) -> Iterator[Verdict]:
    """Whether this machine hears the nodes by mDNS."""
    if not seen.discovers:
        yield skipped("not looked at, because of --no-discovery")
        return
    heard = [found for found in seen.found if MDNS in found.sources]
    listed = [found for found in seen.found if found.answer is not None and found.sources == {LIST}]
    unheard = [] if seen.has_list else listed  # a list in the configuration is for networks without multicast
    elsewhere = [found for found in seen.found if REGISTRY in found.sources] or (listed if seen.has_list else [])
    if not heard and not seen.interfaces and not elsewhere:
        yield wrong(
            "no interface of this machine has multicast, so no node can be heard",
            "switch it on with 'ip link set dev NAME multicast on', or list the nodes in the setting 'nodes'",
        )
        return
    for found in unheard:
        yield wrong(
            f"{found} answers, but is not heard by mDNS",
            "let UDP port 5353 through the firewalls and multicast to 224.0.0.251 through the switches between the two "
            "machines; on networks without it list the nodes in the setting 'nodes' and use --no-discovery",
        )
    if heard:
        yield Verdict(f"{count_text(len(heard), 'nodes')} heard by mDNS")
    elif elsewhere:
        yield Verdict("no node is heard by mDNS; they are known from this machine's registry or its list")
    elif not unheard:
        yield wrong(
            f"no node{_of(seen)} is heard by mDNS on {', '.join(seen.interfaces)}",
            "see that a node runs ('systemctl status granum-node' there) and that firewalls let UDP port 5353 through",
        )


def addresses(seen: Seen) -> Iterator[Verdict]:
    """Whether the nodes answer where they say, and say where others can reach them."""
    if not seen.found:
        yield wrong(
            f"no node{_of(seen)} is known", "start one with 'granum serve DIR', or name one with --node HOST:PORT"
        )
        return
    networked = any(not _is_loopback(found) for found in seen.found if MDNS in found.sources)
    for found in seen.found:
        claims = {
            said.node_id or said.instance: said.computer for source, said in found.advertisements if source == MDNS
        }
        if len(claims) > 1:
            yield wrong(
                f"{count_text(len(claims), 'nodes')} say that they listen at {found.host}: "
                f"{', '.join(sorted(claims.values()))}",
                "give each machine an address of its own, and each node that of its own machine (its setting 'bind')",
            )
        if found.answer is None:
            yield wrong(found.failure, _how_to_reach(found))
            continue
        ids = {said.node_id for source, said in found.advertisements if source == MDNS and said.node_id}
        if len(claims) == 1 and ids and found.answer.node_id not in ids:
            yield wrong(
                f"another node than was advertised answers at {found.host}",
                "two machines have this address; find the other one with 'arping' and give it another address",
            )
        elif networked and MDNS in found.sources and _is_loopback(found):
            yield wrong(
                f"{found.name} advertises {found.address}, where its own machine alone reaches it",
                "give it the address of its network (its setting 'bind'; granum_interface in the inventory)",
            )
    yield Verdict(f"{count_text(len(seen.found), 'nodes')} found, each answers where it says")


def _how_to_reach(found: Found) -> str:
    if found.is_closed:
        return "if its allow-list (its setting 'allow') does not have this machine's network, add it; else see its log"
    return (
        f"see that it runs ('systemctl status granum-node' there), that {found.address} is its address on a network which this "
        f"machine reaches ('ping'), and that its firewall lets TCP port {found.port} through"
    )


# -- what the nodes say ----------------------------------------------------------------------------------------------


def clock(seen: Seen) -> Iterator[Verdict]:
    """Whether the clocks of the nodes and of this machine agree."""
    leads = [(found, answer.lead) for found, answer in seen.answers if answer.lead is not None]
    if not leads:
        yield _nobody()
        return
    ahead = [found for found, (least, _) in leads if least > SKEW_MAX_S]
    behind = [found for found, (_, most) in leads if most < -SKEW_MAX_S]
    remedy = "set it, and keep it right with a time service (chrony, systemd-timesyncd)"
    spread = max(least for _, (least, _) in leads) - min(most for _, (_, most) in leads)
    if len(leads) > 1 and len(leads) in (len(ahead), len(behind)) and spread <= SKEW_MAX_S:
        by = min(min(abs(bound) for bound in lead) for _, lead in leads)
        yield wrong(
            f"the clock of this machine is {_duration(by)} {'behind' if ahead else 'ahead of'} all nodes", remedy
        )
        return
    for found, lead in leads:
        if found in ahead or found in behind:
            by = min(abs(bound) for bound in lead)
            yield wrong(f"the clock of {found} is {_duration(by)} {'ahead' if found in ahead else 'behind'}", remedy)
    yield Verdict(f"{count_text(len(leads), 'nodes')} within {SKEW_MAX_S:g} s of this machine")


def names(seen: Seen) -> Iterator[Verdict]:
    """Whether what ought to have one name has one, and different names mean different things."""
    named: dict[str, set[str]] = {}
    stores: dict[str, set[str]] = {}
    for found in seen.found:
        named.setdefault(found.name, set()).add(found.own_host)
        if found.answer is not None and found.answer.node_id:
            stores.setdefault(found.answer.node_id, set()).add(found.own_host)
    for name, hosts in named.items():
        if len(hosts) > 1:
            yield wrong(
                f"{count_text(len(hosts), 'nodes')} are called {name}: {', '.join(sorted(hosts))}",
                "give each machine a name of its own ('hostnamectl set-hostname NAME') and restart its node",
            )
    for node_id, hosts in stores.items():
        if len(hosts) > 1:
            yield wrong(
                f"one store is served at {' and at '.join(sorted(hosts))} (node id {node_id})",
                "one is a copy of the other: stop the node over the copy, remove .granum/node-id in it, start it again",
            )
    yield from _cluster_names(seen)
    if not seen.found:
        yield skipped("no node is known")
        return
    yield Verdict(f"every node has its own; the cluster is {', '.join(_clusters(seen)) or 'not named'}")


def _cluster_names(seen: Seen) -> Iterator[Verdict]:
    ours, others = _clusters(seen), sorted(seen.other_clusters)
    if not seen.cluster and len(ours) > 1:
        yield wrong(
            f"there are nodes of several clusters, {', '.join(ours)}, and none is chosen",
            "choose one with -c NAME, or for good with 'cluster: NAME' in the configuration",
        )
    if seen.cluster and not seen.found and others:
        yield wrong(
            f"there is no cluster {seen.cluster!r}, but {', '.join(others)}",
            "if one of these is meant, give its name with -c NAME or in the configuration",
        )
    everything = sorted({*ours, *others})
    has_pyme = any(not answer.own for _, answer in seen.answers)
    for first in everything:
        for second in everything:
            if first < second and first.casefold() == second.casefold():
                yield wrong(
                    f"the clusters {first} and {second} differ in capital letters alone",
                    "give one of them another name, or, when one is meant, all nodes the same",
                )
            elif first != second and first in second and has_pyme:
                yield wrong(
                    f"PYME's programs take the cluster {second} for a part of {first}, whose name it contains",
                    "give one of them another name",
                )


def space(seen: Seen) -> Iterator[Verdict]:
    """Whether the nodes have room."""
    free = size = 0
    for found, answer in seen.answers:
        room, total = room_of(answer.status), number(part(answer.status, "Disk"), "total") or 0
        if room is None:
            continue
        free, size = free + room.free, size + total
        is_full = answer.own.get("state") == "full" or (not answer.own and not room.takes_puts)
        if is_full or room.free < total * LOW_SHARE:
            left = "only its reserve is left" if is_full else f"{100 * room.free / total:.0f} % are free"
            yield wrong(
                f"{found} has {size_text(room.free)} of {size_text(total)}: {left}",
                "move series elsewhere and delete them on its disk, or add a node ('granum du --nodes /' says what lies there)",
            )
    yield (
        Verdict(f"{size_text(free)} free of {size_text(size)} on {count_text(len(seen.answers), 'nodes')}")
        if size
        else _nobody()
    )


def puts(seen: Seen) -> Iterator[Verdict]:
    """Whether the nodes take puts, of this machine too."""
    refusing = [found for found, answer in seen.answers if answer.may_put is False]
    may = [found for found, answer in seen.answers if answer.may_put]
    for found, answer in seen.answers:
        verdict = _refusal(found, answer)
        if verdict is not None:
            yield verdict
    for found in refusing if may else ():
        yield wrong(
            f"{found} lets this machine read only, where other nodes take its puts",
            "make the allow-list (setting 'allow') the same on all nodes; granum_networks in the inventory does",
        )
    if not seen.answers:
        yield _nobody()
    elif refusing and not may:
        yield Verdict("this machine may read only, on every node")
    else:
        yield Verdict(f"puts of this machine are taken by {count_text(len(seen.answers), 'nodes')}")


def _refusal(found: Found, answer: Answer) -> Verdict | None:
    state, reason = answer.own.get("state"), answer.own.get("failure") or answer.own.get("reason")
    if state == "draining":
        return wrong(
            f"{found} is being drained and takes no puts",
            f"when its work is done, on its machine: curl -X PUT http://{found.host}/__undrain",
        )
    if state == "failed":
        return wrong(
            f"{found} is read-only: {reason}",
            "look at its disk ('dmesg', 'smartctl -a'), repair or replace it, then 'systemctl restart granum-node' there",
        )
    return None


def versions(seen: Seen) -> Iterator[Verdict]:
    """Whether all run one version."""
    told = {found.name: str(answer.own["version"]) for found, answer in seen.answers if answer.own.get("version")}
    by_version: dict[str, list[str]] = {}
    for name, version in sorted({**told, "this machine": seen.version}.items()):
        by_version.setdefault(version, []).append(name)
    if len(by_version) > 1:
        shown = "; ".join(f"{version} on {', '.join(named)}" for version, named in sorted(by_version.items()))
        yield wrong(f"there are several versions: {shown}", "bring all to one with the playbook 'upgrade'")
    elif not told:
        yield _nobody()
    else:
        yield Verdict(f"{seen.version} everywhere")


def damage(seen: Seen) -> Iterator[Verdict]:
    """Whether nodes have found damaged files."""
    for found, answer in seen.answers:
        count = number(answer.own, "quarantined") or 0
        if count:
            yield wrong(
                f"{found} has {count_text(count, 'files')} in quarantine",
                "'granum-node quarantine list --root DIR' there names them; look at its disk ('smartctl -a')",
            )
    yield Verdict("no file in quarantine") if seen.answers else _nobody()


CHECKS: dict[str, Check] = {
    "multicast": multicast,
    "addresses": addresses,
    "clock": clock,
    "names": names,
    "space": space,
    "puts": puts,
    "versions": versions,
    "damage": damage,
    "mounts": mounts,
    "share": share,
}


def diagnose(seen: Seen) -> list[Finding]:
    """Return what all checks find in *seen*."""
    return findings(CHECKS, seen)


def _nobody() -> Verdict:
    return skipped("no node answers")


def _of(seen: Seen) -> str:
    return f" of cluster {seen.cluster!r}" if seen.cluster else ""


def _clusters(seen: Seen) -> list[str]:
    return sorted({found.cluster for found in seen.found if found.cluster})


def _is_loopback(found: Found) -> bool:
    try:
        return IPv4Address(found.address).is_loopback
    except ValueError:  # a name that could not be looked up
        return False


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
