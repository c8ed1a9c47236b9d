"""The settings of a node: what they are, where they come from, and which are refused.

A setting on the command line wins over `GRANUM_NODE_…` in the environment, that over the configuration file (`--config`, else
`/etc/granum/node.yaml` where it exists), that over PYME's own files, of which only the three `dataserver-…` keys are read.
Pure but for `read_files`.
"""

import ipaddress
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any  # what YAML holds before it is checked

import yaml

from granum.wire.advert import PORT
from granum.wire.errors import BadConfig, BadLocator
from granum.wire.locator import check_cluster_name

CONFIG_FILE = "/etc/granum/node.yaml"
PYME_FILES = ("~/.PYME/config.yaml", "/etc/PYME/config.yaml")
PYME_KEYS = {"dataserver-root": "root", "dataserver-filter": "cluster", "dataserver-port": "port"}
ADVERTISE = ("mdns", "local", "off")
DURABILITY = ("commit", "relaxed")
_ADVERTISE_OF_PYME = {"zeroconf": "mdns"}


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """The settings of one node, checked."""

    root: str
    port: int = PORT
    cluster: str = "granum"
    bind: str = "127.0.0.1"
    advertise: str = "mdns"
    durability: str = "commit"


def read_files(named: str | None) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the settings in the configuration files, the strongest first, each with the name of its file.

    Raises BadConfig for a file that cannot be read, is not YAML, or sets something that does not exist.
    """
    layers = []
    own = named or (CONFIG_FILE if os.path.exists(CONFIG_FILE) else None)
    if own:
        settings = _read(own)
        unknown = sorted(set(settings) - {field.name for field in fields(NodeConfig)})
        if unknown:
            raise BadConfig(f"{own}: there is no setting {', '.join(map(repr, unknown))}")
        layers.append((own, settings))
    for name in map(os.path.expanduser, PYME_FILES):
        if os.path.exists(name):
            found = _read(name)
            layers.append((name, {ours: found[key] for key, ours in PYME_KEYS.items() if key in found}))
    return layers


def resolve(layers: list[tuple[str, Mapping[str, Any]]]) -> NodeConfig:
    """Return the settings that *layers*, the strongest first, come to; raise BadConfig naming layer and setting."""
    settings: dict[str, Any] = {}
    for field in fields(NodeConfig):
        for source, layer in layers:
            if layer.get(field.name) is not None:
                try:
                    settings[field.name] = _CHECKS[field.name](layer[field.name])
                except (ValueError, TypeError) as error:
                    raise BadConfig(f"{source}: {field.name}: {error}") from None
                break
    if "root" not in settings:
        raise BadConfig("no store is named; say which directory with --root DIR")
    config = NodeConfig(**settings)
    if config.advertise == "local" and not ipaddress.IPv4Address(config.bind).is_loopback:
        raise BadConfig("--advertise local is for one machine; with it --bind must be a loopback address")
    return config


def environment_layer(environment: Mapping[str, str]) -> tuple[str, Mapping[str, Any]]:
    """Return the settings in *environment*: `GRANUM_NODE_ROOT`, `GRANUM_NODE_PORT`, …"""
    names = {field.name: f"GRANUM_NODE_{field.name.upper()}" for field in fields(NodeConfig)}
    return "the environment", {ours: environment[name] for ours, name in names.items() if name in environment}


def _read(name: str) -> Mapping[str, Any]:
    try:
        with open(name, encoding="utf-8") as file:
            found = yaml.safe_load(file) or {}
    except OSError as error:
        raise BadConfig(f"{name} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadConfig(f"{name} is not YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(found, dict):
        raise BadConfig(f"{name} holds no settings; write lines 'name: value'")
    return {str(key): value for key, value in found.items()}


def _root(value: Any) -> str:
    if not isinstance(value, str) or not value:  # an empty one would mean the current directory
        raise ValueError(f"{value!r} is not the name of a directory")
    return os.path.abspath(os.path.expanduser(value))


def _port(value: Any) -> int:
    text = str(value)
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= 65535):
        raise ValueError(f"{text!r} is not a port; ports are 0 (any) to 65535")
    return int(text)


def _cluster(value: Any) -> str:
    try:
        return check_cluster_name(str(value))
    except BadLocator as error:
        raise ValueError(str(error)) from None


def _bind(value: Any) -> str:
    text = {"localhost": "127.0.0.1"}.get(str(value), str(value))
    try:
        address = ipaddress.IPv4Address(text)
    except ValueError:
        raise ValueError(f"{text!r} is not an IPv4 address of this machine") from None
    if address.is_unspecified:
        raise ValueError("0.0.0.0 would open the node to every network of this machine; name one address")
    return str(address)


def _advertise(value: Any) -> str:
    text = {False: "off"}.get(value, str(value))  # YAML reads a bare `off` as False
    text = _ADVERTISE_OF_PYME.get(text, text)
    if text not in ADVERTISE:
        raise ValueError(f"{text!r} is not one of {', '.join(ADVERTISE)}")
    return text


def _durability(value: Any) -> str:
    if value not in DURABILITY:
        raise ValueError(f"{value!r} is not one of {', '.join(DURABILITY)}")
    return str(value)


_CHECKS: Mapping[str, Callable[[Any], Any]] = {
    "root": _root,
    "port": _port,
    "cluster": _cluster,
    "bind": _bind,
    "advertise": _advertise,
    "durability": _durability,
}
