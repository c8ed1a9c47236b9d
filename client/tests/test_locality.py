"""Locality: what lies where, as a value and as JSON."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from granum.locality import frame_number, locality_of
from granum.roster import Node
from granum.streaming.series import frame_name
from granum.union import merge
from granum.wire.errors import NodeTimeout
from granum.wire.listing import Entry, Flags, Listing
from granum.wire.paths import ClusterPath

A, B, C = (Node(key, f"{key}:1", "10.0.0.1", 1, "lab", key) for key in "abc")
RUN = ClusterPath.of(["run.pcs"])


def listing(**sizes: int) -> Listing:
    names = {name.replace("__", "."): size for name, size in sizes.items()}
    return {name: Entry(name, Flags.FILE, size) for name, size in names.items()}


LISTINGS = {
    B: listing(metadata__json=7, frame00001__pzf=10, frame00004__pzf=10),
    A: {**listing(frame00003__pzf=10, frame00000__pzf=-1), "sub": Entry("sub", Flags.DIRECTORY, 9)},
}


def test_frames_files_and_bytes_are_counted_by_node() -> None:
    found = locality_of(RUN, merge(LISTINGS, {}), {"b"})
    assert [(share.node, share.is_local, share.frames, share.files, share.bytes) for share in found.shares] == [
        (A, False, (0, 3), (), 10),
        (B, True, (1, 4), ("metadata.json",), 27),
    ]
    assert (found.bytes, found.nodes_of(4), found.nodes_of(99)) == (37, (B,), ())


def test_copies_are_on_every_node_and_the_one_on_this_machine_comes_first() -> None:
    found = locality_of(RUN, merge({A: listing(frame00000__pzf=5), B: listing(frame00000__pzf=5)}, {}), {"b"})
    assert (found.nodes_of(0), found.bytes) == ((B, A), 10)


def test_the_report_is_json_and_names_who_is_missing() -> None:
    view = merge({A: listing(frame00000__pzf=5, notes__txt=2)}, {C: NodeTimeout("c is silent")})
    assert json.loads(json.dumps(locality_of(RUN, view, set()).as_json())) == {
        "path": "/run.pcs",
        "partial": True,
        "missing": {"c:1": "c is silent"},
        "nodes": [
            {
                "id": "a",
                "name": "a:1",
                "host": "10.0.0.1:1",
                "local": False,
                "bytes": 7,
                "frames": [0],
                "files": ["notes.txt"],
            }
        ],
    }


@given(st.integers(0, 10**10 - 1))
def test_the_number_of_a_frame_is_in_its_name(n: int) -> None:
    assert frame_number(frame_name(n)) == n


@pytest.mark.parametrize(
    "name", ["frame1.pzf", "frame000001.pzf", "frame00001.pzf.x", "xframe00001.pzf", "frame0000١.pzf"]
)
def test_other_names_are_no_frames(name: str) -> None:
    assert frame_number(name) is None
