"""What `granum doctor` says of a gateway: its mounts and its share. Pure; the other checks stand in `diagnosis`."""

from collections.abc import Iterator

from granum.cli.finding import Verdict, skipped, wrong
from granum.cli.seen import Mount, Seen

DIALECT_MIN = 0x0300  # SMB 3.0


def mounts(seen: Seen) -> Iterator[Verdict]:
    """Whether a gateway's branches and union are mounted and answer."""
    gateway = seen.gateway
    if gateway is None:
        yield skipped("this machine is no gateway")
        return
    union, branches = gateway.union, gateway.branches
    forbidden = [mount for mount in (union, *branches) if mount.is_forbidden]
    for mount in (*branches, union):
        verdict = _unusable(mount, is_union=mount is union)
        if verdict is not None:
            yield verdict
    if union.is_mounted and not union.is_read_only:
        yield wrong(f"{union.path} can be written to", "mount it read-only: run the playbook 'site' on this gateway")
    if union.entries == 0 and any(branch.entries for branch in branches):
        yield wrong(
            f"{union.path} is empty, its branches are not",
            "no branch is in it: 'systemctl restart granum-branch-watchdog', and see its log with journalctl",
        )
    for found in seen.found:
        if found.address not in gateway.addresses:
            yield wrong(
                f"{found} is no branch of this gateway: its files are not in the share",
                "add its machine to the inventory and run the playbook 'scale' or 'site'",
            )
    if forbidden:
        yield skipped(f"{forbidden[0].path} may not be read by this user; run it as root to look")
    else:
        yield Verdict(f"the union answers, and its branches ({len(branches)}) do")


def _unusable(mount: Mount, *, is_union: bool) -> Verdict | None:
    remedy = (
        "'systemctl restart granum-branch-watchdog'; if that does not help, see 'journalctl -u granum-branch-watchdog'"
        if is_union
        else "see that its machine is up and its NFS server runs; the share lacks its files meanwhile, and regains them by itself"
    )
    if not mount.is_mounted:
        return wrong(f"{mount.path} is not mounted", remedy)
    if mount.failure and not mount.is_forbidden:
        return wrong(f"{mount.path} does not answer: {mount.failure}", remedy)
    return None


def share(seen: Seen) -> Iterator[Verdict]:
    """Whether gateways answer SMB 3."""
    if not seen.shares:
        yield skipped("this machine is no gateway, and none is named with --gateway")
    for found in seen.shares:
        if found.dialect is None:
            yield wrong(
                f"no SMB 3 at {found.host}: {found.failure}",
                "on that machine see 'systemctl status smbd', 'testparm -s', and that its firewall lets TCP port 445 through",
            )
        elif found.dialect < DIALECT_MIN:
            yield wrong(
                f"{found.host} speaks SMB {dialect_text(found.dialect)}, which is too old",
                "set 'server min protocol = SMB3_00' there; the role samba_share does",
            )
        else:
            yield Verdict(f"{found.host} speaks SMB {dialect_text(found.dialect)}")


def dialect_text(dialect: int) -> str:
    """Return what people call *dialect*, '3.0.2' for 0x0302."""
    return f"{dialect >> 8}.{(dialect >> 4) & 15}.{dialect & 15}".removesuffix(".0")
