"""Where settings come from, which one wins, and which are refused."""

from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any

import pytest

from granum.wire.errors import BadConfig
from granum_node import config as configs
from granum_node.config import Allowed, NodeConfig, environment_layer, read_files, resolve
from granum_node.sizes import Size

LOCAL = (Allowed(IPv4Network("127.0.0.0/8"), writes=True), Allowed(IPv6Network("::1/128"), writes=True))
LAB = Allowed(IPv4Network("10.0.0.0/24"), writes=True)


def settings(**given: Any) -> NodeConfig:
    return resolve([("the test", {"root": "/data", **given})])


def test_defaults() -> None:
    assert settings() == NodeConfig("/data", 15348, "granum", ("127.0.0.1",), "mdns", allow=LOCAL)


def test_the_first_layer_wins_setting_by_setting() -> None:
    layers = [
        ("a", {"port": "1", "cluster": None}),
        ("b", {"port": 2, "cluster": "lab", "root": "/b"}),
        ("c", {"root": "/c", "bind": "localhost"}),
    ]
    assert resolve(layers) == NodeConfig("/b", 1, "lab", ("127.0.0.1",), "mdns", allow=LOCAL)


def test_settings_in_the_environment() -> None:
    environment = {"GRANUM_NODE_ROOT": "/data", "GRANUM_NODE_PORT": "7", "GRANUM_NODE_ADVERTISE": "off", "OTHER": "x"}
    assert resolve([environment_layer(environment)]) == NodeConfig(
        "/data", 7, "granum", ("127.0.0.1",), "off", allow=LOCAL
    )


def test_the_reserve_the_quotas_and_the_log() -> None:
    given = settings(
        reserve_bytes="2%", reserve_inodes="7", quota={"lab": "1GiB", 2026: 5}, log="json", log_requests="yes"
    )
    assert settings(quota_files={"lab": "7"}, quota_per_address="1KiB").quota_files == {"lab": 7}
    assert settings(quota_per_address="1KiB").quota_per_address == 1024
    assert (given.reserve_bytes, given.reserve_inodes) == (Size(0, 0.02), 7)
    assert given.quota == {"lab": 1_073_741_824, "2026": 5}
    assert (given.log, given.log_requests) == ("json", True)


@pytest.mark.parametrize(
    ("given", "found"),
    [("zeroconf", "mdns"), ("mdns", "mdns"), ("local", "local"), ("off", "off"), (False, "off")],
)
def test_spellings_of_advertise(given: object, found: str) -> None:
    assert settings(advertise=given).advertise == found


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("root", ""),  # would be the current directory
        ("root", ["/data"]),
        ("port", "http"),
        ("reserve_bytes", "much"),
        ("reserve_inodes", "-1"),
        ("reserve_inodes", "1%"),
        ("quota", "lab=1GiB"),
        ("quota", {"lab": "10%"}),
        ("quota", {"lab": "much"}),
        ("quota", {"a/b": "1GiB"}),
        ("quota", {"..": "1GiB"}),
        ("quota_files", 7),
        ("quota_files", {"lab": "1GiB"}),
        ("quota_files", {"..": 7}),
        ("quota_per_address", "1%"),
        ("log", "loud"),
        ("log_requests", "perhaps"),
        ("port", ""),
        ("port", -1),
        ("port", 65536),
        ("port", 1.5),
        ("port", True),
        ("port", "²"),
        ("cluster", ""),
        ("cluster", "two words"),
        ("cluster", "x" * 33),
        ("cluster", "a]b"),
        ("bind", "0.0.0.0"),
        ("bind", "0"),
        ("bind", ""),
        ("bind", "node.lab"),
        ("bind", "::1"),
        ("bind", "10.0.0.256"),
        ("bind", "::"),
        ("bind", "127.0.0.1,0.0.0.0"),
        ("bind", []),
        ("allow", ""),
        ("allow", []),
        ("allow", "10.0.0.0/24"),
        ("allow", "10.0.0.0/24=w"),
        ("allow", "10.0.0.5/24=rw"),
        ("allow", "lab=rw"),
        ("allow", "0.0.0.0/0=ro"),
        ("allow", "::/0=rw"),
        ("allow", ["10.0.0.0/24=rw", "10.0.0.0/24=ro"]),
        ("names", ""),
        ("names", "http://node"),
        ("names", "node:15348"),
        ("names", ["two words"]),
        ("advertise", "bonjour"),
        ("advertise", ["mdns"]),
        ("advertise", True),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused_by_name_and_place(name: str, value: object) -> None:
    with pytest.raises(BadConfig, match=f"^the test: {name}: "):
        settings(**{name: value})


def test_a_store_must_be_named() -> None:
    with pytest.raises(BadConfig, match="--root"):
        resolve([("the test", {"port": 1})])


def test_the_registry_of_one_machine_is_not_for_an_address_on_the_network() -> None:
    assert settings(advertise="local", bind="127.0.0.2").bind == ("127.0.0.2",)
    with pytest.raises(BadConfig, match="--advertise local is for one machine"):
        settings(advertise="local", bind="10.0.0.5")


@pytest.mark.parametrize("given", ["127.0.0.1,::1", ["127.0.0.1", "::1"], ("localhost", "0:0:0:0:0:0:0:1", "::1")])
def test_several_addresses(given: object) -> None:
    assert settings(bind=given).bind == ("127.0.0.1", "::1")


def test_an_address_on_a_network_needs_a_list_of_who_may_talk() -> None:
    with pytest.raises(BadConfig, match=r"10\.0\.0\.5 is open to a network, .* for example --allow 10.0.0.0/24=rw"):
        settings(bind="127.0.0.1,10.0.0.5")
    assert settings(bind="10.0.0.5", allow="10.0.0.0/24=rw").allow == (LAB,)


def test_the_list_says_all_who_may_talk() -> None:
    """This machine is not let in besides: a list that says 'ro' for everybody would otherwise not be true."""
    read_only = Allowed(IPv4Network("127.0.0.0/8"), writes=False)
    assert settings(allow=["10.0.0.0/24=rw", "127.0.0.0/8=ro"]).allow == (LAB, read_only)
    assert settings(allow="10.0.0.0/24=rw,127.0.0.0/8=ro").allow == (LAB, read_only)


# -- files -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put all configuration files into tmp_path."""
    monkeypatch.setattr(configs, "CONFIG_FILE", str(tmp_path / "node.yaml"))
    monkeypatch.setattr(configs, "PYME_FILES", (str(tmp_path / "user.yaml"), str(tmp_path / "site.yaml")))
    return tmp_path


def test_without_files_there_are_no_settings(places: Path) -> None:
    assert read_files(None) == []


def test_a_file_of_ours_wins_over_those_of_pyme_and_the_users_over_the_sites(places: Path) -> None:
    (places / "node.yaml").write_text("root: /ours\n")
    (places / "user.yaml").write_text("dataserver-root: /user\ndataserver-filter: users\nother: 1\n")
    (places / "site.yaml").write_text("dataserver-filter: sites\ndataserver-port: 8080\n")
    assert resolve(read_files(None)) == NodeConfig("/ours", 8080, "users", ("127.0.0.1",), "mdns", allow=LOCAL)


def test_a_named_file_is_read_instead(places: Path) -> None:
    (places / "node.yaml").write_text("root: /ours\n")
    (places / "other.yaml").write_text("root: /other\nadvertise: off\n")
    assert resolve(read_files(str(places / "other.yaml"))) == NodeConfig("/other", advertise="off", allow=LOCAL)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"root: /data\nprot: 1\n", "there is no setting 'prot'"),
        (b"- root\n", "holds no settings"),
        (b"root: [\n", "is not YAML"),
        (b"\xff\xfe\x00", "is not YAML"),
    ],
)
def test_a_file_that_cannot_be_understood_is_refused_in_one_line(places: Path, text: bytes, problem: str) -> None:
    (places / "node.yaml").write_bytes(text)
    with pytest.raises(BadConfig, match=problem) as refused:
        read_files(None)
    assert str(places / "node.yaml") in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_named_file_that_is_missing_is_refused(places: Path) -> None:
    with pytest.raises(BadConfig, match="cannot be read"):
        read_files(str(places / "missing.yaml"))


def test_an_empty_file_sets_nothing(places: Path) -> None:
    (places / "node.yaml").touch()
    assert read_files(None) == [(str(places / "node.yaml"), {})]


def test_the_digest_is_on_unless_it_is_turned_off() -> None:
    assert settings().digest == "xxh3-128"
    assert [settings(digest=value).digest for value in ("off", False, "xxh3-128")] == ["off", "off", "xxh3-128"]
    with pytest.raises(BadConfig, match="digest: 'sha-256' is not one of xxh3-128, off"):
        settings(digest="sha-256")
