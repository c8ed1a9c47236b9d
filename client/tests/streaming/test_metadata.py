"""Metadata and events are written so that PYME's reader and any JSON parser understand them."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from granum.streaming.metadata import encode_events, encode_metadata, flat_metadata

NAMES = st.sampled_from(["Camera", "x", "y", "voxelsize", "Lock_Target"])
VALUES = st.one_of(st.integers(), st.text(), st.booleans(), st.none(), st.lists(st.integers()))


def test_nested_metadata_become_dotted_keys() -> None:
    nested = {"voxelsize": {"x": 0.07, "units": "um"}, "Camera.Name": "A"}
    assert flat_metadata(nested) == {"voxelsize.x": 0.07, "voxelsize.units": "um", "Camera.Name": "A"}


@given(st.recursive(st.dictionaries(NAMES, VALUES), lambda inner: st.dictionaries(NAMES, inner | VALUES), max_leaves=9))
def test_flat_metadata_stay_as_they_are(metadata: dict[str, Any]) -> None:
    flat = flat_metadata(metadata)
    assert flat_metadata(flat) == flat
    assert json.loads(encode_metadata(flat)) == flat


def test_metadata_are_indented_and_sorted() -> None:
    assert encode_metadata({"b": 1, "a.c": "x"}) == b'{\n  "a.c": "x",\n  "b": 1\n}'


def test_numpy_values_become_plain_ones() -> None:
    values = {"a": np.uint16(7), "b": np.float32(0.5), "c": np.array([1, 2]), "d": [np.int8(3)], "e": np.True_}
    assert flat_metadata(values) == {"a": 7, "b": 0.5, "c": [1, 2], "d": [3], "e": True}


@pytest.mark.parametrize("key", ["", "a b", "1a", "a..b", ".a", "a.", "a-b", "class", "a.import", "__import__('os')"])
def test_a_key_that_is_no_name_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="is not made of names and dots"):
        flat_metadata({key: 1})


def test_a_key_that_is_there_twice_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'a\.b' is there twice"):
        flat_metadata({"a.b": 1, "a": {"b": 2}})


def test_a_key_that_is_no_text_is_refused() -> None:
    with pytest.raises(ValueError, match="7 is not text"):
        flat_metadata({7: 1})  # type: ignore[dict-item]


def test_a_value_that_json_cannot_hold_is_refused_by_key() -> None:
    with pytest.raises(ValueError, match=r"value of 'a\.b' cannot be written as JSON: it is of type bytes"):
        flat_metadata({"a": {"b": b"raw"}})


def test_events_are_rows_of_name_description_and_time() -> None:
    assert json.loads(encode_events([("start", "laser on", 5)])) == [["start", "laser on", 5.0]]


@pytest.mark.parametrize(("name", "descr"), [("n" * 33, ""), ("ü" * 17, ""), ("n", "d" * 257)])
def test_an_event_too_long_for_its_columns_is_refused(name: str, descr: str) -> None:
    with pytest.raises(ValueError, match="of an event has more than"):
        encode_events([(name, descr, 0.0)])


def test_an_event_that_just_fits_is_written() -> None:
    assert json.loads(encode_events([("n" * 32, "d" * 256, 0.0)])) == [["n" * 32, "d" * 256, 0.0]]
