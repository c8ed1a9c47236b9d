"""The client's configuration: which cluster, which nodes, which stores on this machine, and where each setting came from.

The first that says something wins: the command line, GRANUM_... in the environment, the user's file, the machine's files in
/etc/granum, and last of all PYME's own files, so that a PYME lab works unedited. `resolve` decides and reads nothing;
`load` reads. A key that nobody knows is refused in our files, because a misspelt setting would be ignored for ever; in files
that belong to others (PYME's, the node's) it is none of our business.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeAlias

import yaml

from granum.placement import placement_named
from granum.wire.advert import PORT
from granum.wire.errors import BadConfig

SYSTEM_DIRECTORY = "/etc/granum"
NODE_FILE = "node.yaml"  # there; the daemon's
PYME_FILES = ("~/.PYME/config.yaml", "/etc/PYME/config.yaml")
DEFAULT = "default"
OVERFLOW_BYTES_MAX = 64 << 30  # over a minute of a fast camera with no node at all

_KEYS = ("cluster", "nodes", "local_stores", "port", "placement", "overflow_dir", "overflow_bytes_max")
_OF_NODE = {"cluster": "cluster", "root": "local_stores"}
_OF_PYME = {"dataserver-filter": "cluster", "dataserver-root": "local_stores", "dataserver-port": "port"}
_SEPARATORS = {"nodes": ",", "local_stores": ":"}

Raw: TypeAlias = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Layer:
    """Settings from one place, as they were found. *foreign* maps the keys of a file that is not ours to our own."""

    origin: str
    settings: Raw
    foreign: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Config:
    """What a client needs to know. *port* is that of nodes listed without one; *origins* says where each setting is from.

    *placement* is a name as `granum.placement.placement_named` takes it. Below *overflow_dir* lies the overflow of each stream
    that has one, of at most *overflow_bytes_max* bytes.
    """

    cluster: str = ""
    nodes: tuple[str, ...] = ()
    local_stores: tuple[str, ...] = ()
    port: int = PORT
    placement: str = "least-recently-written"
    overflow_dir: str = ""
    overflow_bytes_max: int = OVERFLOW_BYTES_MAX
    origins: Mapping[str, str] = field(default_factory=lambda: dict.fromkeys(_KEYS, DEFAULT), compare=False)


def resolve(layers: Iterable[Layer]) -> Config:
    """Return the configuration that *layers*, the strongest first, come to; raise BadConfig naming place and key."""
    found: dict[str, object] = {}
    origins = dict.fromkeys(_KEYS, DEFAULT)
    for layer in layers:
        for key, value in _own_keys(layer).items():
            checked = _checked(key, value, layer.origin)  # also where a stronger layer wins: a bad file is a bad file
            if key not in found:
                found[key] = checked
                origins[key] = layer.origin
    return Config(**found, origins=MappingProxyType(origins))  # type: ignore[arg-type]  # each checked by its key


def load(
    options: Raw | None = None,
    environment: Mapping[str, str] = MappingProxyType(os.environ),
    system_directory: str = SYSTEM_DIRECTORY,
    pyme_files: Sequence[str] = PYME_FILES,
) -> Config:
    """Return the configuration for *options*, the settings given on the command line, in *environment*, of this machine.

    Raises BadConfig for a file that cannot be understood, or read though it is there.
    """
    given = {key: value for key, value in (options or {}).items() if value is not None}
    layers = [Layer("command line", given)]
    layers += [
        Layer(f"GRANUM_{key.upper()}", {key: environment[f"GRANUM_{key.upper()}"]})
        for key in _KEYS
        if f"GRANUM_{key.upper()}" in environment
    ]
    home = environment.get("HOME", "")
    own = environment.get("XDG_CONFIG_HOME") or os.path.join(home, ".config")
    layers += _file(os.path.join(own, "granum", "config.yaml"))
    for name in _yaml_files(system_directory):
        layers += _file(os.path.join(system_directory, name), _OF_NODE if name == NODE_FILE else None)
    for name in pyme_files:
        layers += _file(name.replace("~", home, 1) if name.startswith("~/") else name, _OF_PYME)
    state = environment.get("XDG_STATE_HOME") or os.path.join(home, ".local", "state")
    layers.append(Layer(DEFAULT, {"overflow_dir": os.path.join(state, "granum", "overflow")}))
    return resolve(layers)


def _own_keys(layer: Layer) -> dict[str, object]:
    if layer.foreign is not None:
        return {layer.foreign[key]: value for key, value in layer.settings.items() if key in layer.foreign}
    unknown = sorted(set(layer.settings) - set(_KEYS))
    if unknown:
        raise BadConfig(f"{layer.origin}: there is no setting {unknown[0]!r}; there are {', '.join(_KEYS)}")
    return dict(layer.settings)


def _checked(key: str, value: object, origin: str) -> object:
    if key in _SEPARATORS:
        parts = value.split(_SEPARATORS[key]) if isinstance(value, str) else value
        if isinstance(parts, list | tuple) and all(isinstance(part, str) for part in parts):
            return tuple(part.strip() for part in parts if part.strip())
        raise BadConfig(f"{origin}: {key} must be a list of texts, not {value!r}")
    if key == "port":
        port = int(value) if isinstance(value, str) and value.isdecimal() and len(value) <= 5 else value
        if isinstance(port, int) and not isinstance(port, bool) and 0 < port < 65536:
            return port
        raise BadConfig(f"{origin}: port must be a number from 1 to 65535, not {value!r}")
    if key == "overflow_bytes_max":
        size = int(value) if isinstance(value, str) and value.isdecimal() and len(value) <= 18 else value
        if isinstance(size, int) and not isinstance(size, bool) and size > 0:
            return size
        raise BadConfig(f"{origin}: overflow_bytes_max must be a number of bytes, not {value!r}")
    if isinstance(value, str):
        if key == "placement":
            _check_placement(value, origin)
        return value
    raise BadConfig(f"{origin}: {key} must be a text, not {value!r}; put it in quotation marks")


def _check_placement(name: str, origin: str) -> None:
    try:
        placement_named(name)
    except BadConfig as error:
        raise BadConfig(f"{origin}: {error}") from error


def _yaml_files(directory: str) -> list[str]:
    """Return the names of the files in *directory*; the node's comes last, because the others are meant for clients."""
    try:
        names = [name for name in os.listdir(directory) if name.endswith(".yaml")]
    except OSError:
        return []
    return sorted(names, key=lambda name: (name == NODE_FILE, name))


def _file(name: str, foreign: Mapping[str, str] | None = None) -> list[Layer]:
    """Return the layer in the file *name*; none when there is no such file, or it is another's and closed to us."""
    try:
        with open(name, encoding="utf-8") as file:
            found = yaml.safe_load(file)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        if foreign is not None:
            return []
        raise BadConfig(f"{name} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadConfig(f"{name} is not YAML: {str(error).splitlines()[0]}") from error
    if found is None:
        return []
    if not isinstance(found, dict):
        raise BadConfig(f"{name} holds no settings; write lines 'key: value'")
    return [Layer(name, {str(key): value for key, value in found.items()}, foreign)]
