"""What a series says about itself: metadata and events, as PYME writes and reads them.

Metadata are flat, dotted keys. The rule: every key is a chain of identifiers, because PYME's reader evaluates keys as Python
names, and every value survives JSON. An event has a name, a description and a time.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from keyword import iskeyword
from typing import Any

import numpy as np

EVENT_NAME_BYTES_MAX = 32  # both are the widths of the columns in which PYME keeps events
EVENT_DESCR_BYTES_MAX = 256

Event = tuple[str, str, float]  # name, description, unix time in seconds


def flat_metadata(metadata: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return *metadata* with nested mappings as dotted keys, 'voxelsize.x', and NumPy values as plain ones.

    Raises ValueError for a key that is not made of identifiers or is there twice, or a value that JSON cannot hold.
    """
    flat: dict[str, Any] = {}
    for key, value in _leaves("", metadata or {}):
        if not all(part.isidentifier() and not iskeyword(part) for part in key.split(".")):
            raise ValueError(f"the metadata key {key!r} is not made of names and dots")
        if key in flat:
            raise ValueError(f"the metadata key {key!r} is there twice")
        try:
            flat[key] = json.loads(json.dumps(value, default=_plain))
        except (TypeError, ValueError) as error:
            raise ValueError(f"the metadata value of {key!r} cannot be written as JSON: {error}") from error
    return flat


def encode_metadata(flat: Mapping[str, Any]) -> bytes:
    """Return the body of metadata.json, from keys and values as `flat_metadata` returns them."""
    return json.dumps(flat, indent=2, sort_keys=True).encode()


def encode_events(events: Iterable[Event]) -> bytes:
    """Return the body of events.json; raises ValueError for an event whose name or description is too long."""
    rows = []
    for name, descr, time in events:
        for what, text, limit in (
            ("name", name, EVENT_NAME_BYTES_MAX),
            ("description", descr, EVENT_DESCR_BYTES_MAX),
        ):
            if len(text.encode()) > limit:
                raise ValueError(f"the {what} of an event has more than {limit} bytes: {text!r}")
        rows.append([name, descr, float(time)])
    return json.dumps(rows).encode()


def _leaves(prefix: str, metadata: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in metadata.items():
        if not isinstance(name, str):
            raise ValueError(f"the metadata key {name!r} is not text")  # noqa: TRY004 - one kind of error for bad keys
        if isinstance(value, Mapping):
            yield from _leaves(f"{prefix}{name}.", value)
        else:
            yield prefix + name, value


def _plain(value: object) -> object:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"it is of type {type(value).__name__}")
