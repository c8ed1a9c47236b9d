"""What `granum doctor` finds wrong with a gateway: its mounts and its share."""

import pytest

from granum.cli.finding import Finding, findings
from granum.cli.gateway import dialect_text, mounts, share
from granum.cli.seen import MDNS, Found, Gateway, Mount, Seen, Share
from granum.wire.advert import Advertisement

UNION = Mount("/srv/granum/union", is_mounted=True, is_read_only=True, entries=2)
BRANCH = Mount("/srv/granum/branches/disk1", is_mounted=True, is_read_only=True, entries=2)


def mount(like: Mount, **changes: object) -> Mount:
    fields = {name: getattr(like, name) for name in Mount.__slots__}
    return Mount(**{**fields, **changes})


def seen(union: Mount, *branches: Mount, nodes: int = 1) -> Seen:
    found = tuple(
        Found(f"10.0.0.{number}", 15348, ((MDNS, Advertisement(f"n{number}", f"10.0.0.{number}", 15348)),))
        for number in range(nodes)
    )
    return Seen("lab", "1.0", found, gateway=Gateway(union, branches, frozenset({"10.0.0.0"})))


def wrong(scene: Seen) -> list[str]:
    return [finding.text for finding in findings({"mounts": mounts}, scene) if finding.state == "wrong"]


def test_a_gateway_that_is_well_says_how_many_branches_answer() -> None:
    assert findings({"mounts": mounts}, seen(UNION, BRANCH)) == [
        Finding("mounts", "ok", "the union answers, and its branches (1) do")
    ]


@pytest.mark.parametrize("which", [0, 1])
def test_what_is_not_mounted_is_named(which: int) -> None:
    parts = [UNION, BRANCH]
    parts[which] = mount(parts[which], is_mounted=False, entries=None)
    assert wrong(seen(*parts)) == [f"{parts[which].path} is not mounted"]


@pytest.mark.parametrize("which", [0, 1])
def test_a_dead_mount_is_named(which: int) -> None:
    parts = [UNION, BRANCH]
    parts[which] = mount(parts[which], entries=None, failure="nothing came within 5 s")
    assert wrong(seen(*parts)) == [f"{parts[which].path} does not answer: nothing came within 5 s"]


def test_a_union_that_can_be_written_to_is_wrong() -> None:
    assert wrong(seen(mount(UNION, is_read_only=False), BRANCH)) == ["/srv/granum/union can be written to"]


def test_an_empty_union_over_branches_that_are_not_is_wrong() -> None:
    assert wrong(seen(mount(UNION, entries=0), BRANCH)) == ["/srv/granum/union is empty, its branches are not"]
    assert not wrong(seen(mount(UNION, entries=0), mount(BRANCH, entries=0)))


def test_a_node_without_a_branch_is_noticed() -> None:
    assert wrong(seen(UNION, BRANCH, nodes=2)) == [
        "10.0.0.1:15348 is no branch of this gateway: its files are not in the share"
    ]


def test_what_this_user_may_not_see_is_not_called_wrong() -> None:
    hidden = mount(UNION, entries=None, failure="Permission denied", is_forbidden=True)
    (finding,) = findings({"mounts": mounts}, seen(hidden, BRANCH))
    assert (finding.state, "root" in finding.text) == ("skipped", True)


def test_other_machines_have_no_mounts_to_check() -> None:
    (finding,) = findings({"mounts": mounts}, Seen("lab", "1.0"))
    assert finding.state == "skipped"


# -- the share -----------------------------------------------------------------------------------------------------------


def shares(*found: Share) -> list[tuple[str, str]]:
    scene = Seen("lab", "1.0", shares=found)
    return [(finding.state, finding.text) for finding in findings({"share": share}, scene)]


def test_a_share_that_speaks_smb_3_is_well() -> None:
    assert shares(Share("gw", 0x0302)) == [("ok", "gw speaks SMB 3.0.2")]


def test_a_share_that_does_not_answer_is_wrong() -> None:
    assert shares(Share("gw", failure="Connection refused")) == [("wrong", "no SMB 3 at gw: Connection refused")]


def test_a_share_that_speaks_an_older_smb_is_wrong() -> None:
    assert shares(Share("gw", 0x0210)) == [("wrong", "gw speaks SMB 2.1, which is too old")]


def test_where_no_gateway_is_named_no_share_is_looked_for() -> None:
    assert [state for state, _ in shares()] == ["skipped"]


@pytest.mark.parametrize(("dialect", "text"), [(0x0202, "2.0.2"), (0x0300, "3.0"), (0x0311, "3.1.1")])
def test_dialects_are_called_what_people_call_them(dialect: int, text: str) -> None:
    assert dialect_text(dialect) == text
