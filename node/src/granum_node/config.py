"""The settings of a node: what they are, where they come from, and which are refused.

A setting on the command line wins over `GRANUM_NODE_…` in the environment, that over the configuration file (`--config`, else
`/etc/granum/node.yaml` where it exists), that over PYME's own files, of which only the three `dataserver-…` keys are read.
Pure but for `read_files`.
"""

import dataclasses
import ipaddress
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any  # what YAML holds before it is checked

import yaml

from granum.wire.advert import PORT
from granum.wire.errors import BadConfig, BadLocator
from granum.wire.locator import check_cluster_name
from granum.wire.paths import check_name
from granum_node.sizes import Size, parse_size

CONFIG_FILE = "/etc/granum/node.yaml"
PYME_FILES = ("~/.PYME/config.yaml", "/etc/PYME/config.yaml")
PYME_KEYS = {"dataserver-root": "root", "dataserver-filter": "cluster", "dataserver-port": "port"}
ADVERTISE = ("mdns", "local", "off")
DURABILITY = ("commit", "relaxed")
DIGEST = ("xxh3-128", "off")
LOG = ("auto", "json", "text")
RELAXED_WINDOW_S = 2.0  # of receipts that a power failure may take from a node that does not sync before them
SCRUB_DAYS = 30.0  # for one reading of the whole store: a disk that loses a bit a year is found out in time
RESERVE = Size(1 << 30, 0.01)  # room for a repair, and for what is under way when the disk runs full
RESERVE_INODES = 10_000
LOCAL = ("127.0.0.0/8=rw", "::1/128=rw")  # who may talk to a node that serves this machine alone
_ADVERTISE_OF_PYME = {"zeroconf": "mdns"}
_HOST_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?\.?")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class Allowed:
    """Hosts that may talk to the node; *writes* tells whether they may put, too."""

    network: ipaddress.IPv4Network | ipaddress.IPv6Network
    writes: bool


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """The settings of one node, checked.

    The first address of *bind* is the one that is advertised. *names* are further names that the node answers to. *quota*
    and *quota_files* give directories at the top the bytes and files that they may hold, *quota_per_address* each address the
    bytes that it may put in an hour. *scrub_days* is how long one reading of the whole store takes, 0 for none.
    """

    root: str
    port: int = PORT
    cluster: str = "granum"
    bind: tuple[str, ...] = ("127.0.0.1",)
    advertise: str = "mdns"
    durability: str = "commit"
    relaxed_window_s: float = RELAXED_WINDOW_S
    digest: str = "xxh3-128"
    scrub_days: float = SCRUB_DAYS
    allow: tuple[Allowed, ...] = ()
    names: tuple[str, ...] = ()
    reserve_bytes: Size = RESERVE
    reserve_inodes: int = RESERVE_INODES
    quota: Mapping[str, int] = dataclasses.field(default_factory=dict)
    quota_files: Mapping[str, int] = dataclasses.field(default_factory=dict)
    quota_per_address: int | None = None
    log: str = "auto"
    log_requests: bool = False


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
    on_network = [address for address in config.bind if not ipaddress.ip_address(address).is_loopback]
    if config.advertise == "local" and on_network:
        raise BadConfig("--advertise local is for one machine; with it --bind must be a loopback address")
    if on_network and not config.allow:
        raise BadConfig(
            f"{on_network[0]} is open to a network, but no host is allowed to talk to the node; "
            "say which with --allow, for example --allow 10.0.0.0/24=rw"
        )
    return config if config.allow else replace(config, allow=tuple(map(_allowed, LOCAL)))


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


def _listed(value: Any) -> list[str]:
    """Return the words in *value*: a list, or a text with commas between them."""
    texts = value if isinstance(value, list | tuple) else [value]
    return [word.strip() for text in texts for word in str(text).split(",")]


def _bind(value: Any) -> tuple[str, ...]:
    addresses = [_address({"localhost": "127.0.0.1"}.get(text, text)) for text in _listed(value)]
    if not addresses or addresses[0].version != 4:
        raise ValueError("the first address must be an IPv4 address: clients are told that one")
    return tuple(dict.fromkeys(map(str, addresses)))


def _address(text: str) -> Address:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise ValueError(f"{text!r} is not an IP address of this machine") from None
    if address.is_unspecified:
        raise ValueError(f"{address} would open the node to every network of this machine; name one address")
    return address


def _allow(value: Any) -> tuple[Allowed, ...]:
    entries = tuple(_allowed(text) for text in _listed(value))
    if not entries:
        raise ValueError("the list is empty; name the networks whose hosts may talk to the node")
    if len({entry.network for entry in entries}) < len(entries):
        raise ValueError("a network is named twice")
    return entries


def _allowed(text: str) -> Allowed:
    network, _, may = text.partition("=")
    if may not in {"rw", "ro"}:
        raise ValueError(f"{text!r} does not say what is allowed; write NETWORK=rw, or =ro for reading only")
    try:
        found = ipaddress.ip_network(network)
    except ValueError:
        raise ValueError(f"{network!r} is not a network; write it as 10.0.0.0/24, one host as 10.0.0.7") from None
    if found.prefixlen == 0:
        raise ValueError(f"{network} is every host in the world; name the networks of the lab")
    return Allowed(found, may == "rw")


def _names(value: Any) -> tuple[str, ...]:
    names = tuple(_listed(value))
    for name in names:
        if _HOST_NAME.fullmatch(name) is None:
            raise ValueError(f"{name!r} is not a host name; leave out 'http://' and the port")
    return names


def _advertise(value: Any) -> str:
    text = {False: "off"}.get(value, str(value))  # YAML reads a bare `off` as False
    text = _ADVERTISE_OF_PYME.get(text, text)
    if text not in ADVERTISE:
        raise ValueError(f"{text!r} is not one of {', '.join(ADVERTISE)}")
    return text


def _digest(value: Any) -> str:
    text = {False: "off"}.get(value, str(value))  # YAML reads a bare `off` as False
    if text not in DIGEST:
        raise ValueError(f"{text!r} is not one of {', '.join(DIGEST)}")
    return text


def _relaxed_window_s(value: Any) -> float:
    seconds = float(value)
    if not 0.1 <= seconds <= 3600:  # below it a node syncs all the time, above it the mode promises nothing
        raise ValueError(f"{value!r} is no number of seconds from 0.1 to 3600")
    return seconds


def _scrub_days(value: Any) -> float:
    days = float({False: 0}.get(value, value))  # YAML reads a bare `off` as False
    if not 0 <= days <= 3650:
        raise ValueError(f"{value!r} is no number of days up to 3650; 0 means never")
    return days


def _durability(value: Any) -> str:
    if value not in DURABILITY:
        raise ValueError(f"{value!r} is not one of {', '.join(DURABILITY)}")
    return str(value)


def _reserve_bytes(value: Any) -> Size:
    return parse_size(str(value))


def _reserve_inodes(value: Any) -> int:
    return _number(value, "inodes")


def _number(value: Any, of: str) -> int:
    text = str(value)
    if not (text.isascii() and text.isdigit() and len(text) <= 12):
        raise ValueError(f"{text!r} is not a number of {of}")
    return int(text)


def _quota(value: Any) -> Mapping[str, int]:
    return {name: _quota_bytes(limit) for name, limit in _by_directory(value, "size").items()}


def _quota_files(value: Any) -> Mapping[str, int]:
    return {name: _number(limit, "files") for name, limit in _by_directory(value, "number").items()}


def _quota_bytes(value: Any) -> int:
    size = parse_size(str(value))
    if size.share:
        raise ValueError(f"{value!r}: a quota is a number of bytes, as 500GB")
    return size.bytes


def _by_directory(value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"write one line 'directory: {what}' for each directory at the top, in the configuration file")
    for name in value:
        check_name(str(name))
    return {str(name): limit for name, limit in value.items()}


def _log(value: Any) -> str:
    if value not in LOG:
        raise ValueError(f"{value!r} is not one of {', '.join(LOG)}")
    return str(value)


def _log_requests(value: Any) -> bool:
    found = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}.get(str(value).lower())
    if found is None:
        raise ValueError(f"{value!r} is neither true nor false")
    return found


_CHECKS: Mapping[str, Callable[[Any], Any]] = {
    "root": _root,
    "port": _port,
    "cluster": _cluster,
    "bind": _bind,
    "advertise": _advertise,
    "durability": _durability,
    "relaxed_window_s": _relaxed_window_s,
    "scrub_days": _scrub_days,
    "digest": _digest,
    "allow": _allow,
    "names": _names,
    "reserve_bytes": _reserve_bytes,
    "reserve_inodes": _reserve_inodes,
    "quota": _quota,
    "quota_files": _quota_files,
    "quota_per_address": _quota_bytes,
    "log": _log,
    "log_requests": _log_requests,
}
