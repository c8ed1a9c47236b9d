"""The collection in `ansible/` and what packs granum for it, as far as no machine is needed to see it."""

import importlib.util
import re
import subprocess
import tarfile
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

from granum_node.config import read_files, resolve
from tools import wheelhouse
from tools.deploy_tools import ENVIRONMENT

ROOT = Path(__file__).parents[2]
COLLECTION = ROOT / "ansible"
ROLES = sorted(role.parent.parent for role in COLLECTION.glob("roles/*/meta/argument_specs.yml"))
HASH = "sha256:" + "0" * 64
LOCK = f"""\
# made
numpy==2.4.6 ; python_full_version < '3.12' \\
    --hash={HASH}
numpy==2.5.5 ; python_full_version >= '3.12' \\
    --hash={HASH}
cffi==2.1.1 ; platform_python_implementation != 'PyPy' \\
    --hash={HASH} \\
    --hash={HASH}
"""


def read(path: Path) -> Any:
    """What a file of YAML holds."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(("python", "numpy"), [("3.11", "2.4.6"), ("3.13", "2.5.5")])
def test_wheels_are_fetched_for_the_python_of_the_machines(python: str, numpy: str) -> None:
    """Whatever Python fetches them; and the hashes stay."""
    assert list(wheelhouse.pins(LOCK, python, "x86_64")) == [
        f"numpy=={numpy} --hash={HASH}",
        f"cffi==2.1.1 --hash={HASH} --hash={HASH}",
    ]


def test_what_is_packed_belongs_to_root_and_can_be_read_by_the_service(tmp_path: Path) -> None:
    """Even where the person who packs it lets nobody read his files."""
    (tmp_path / "content").mkdir(mode=0o700)
    (tmp_path / "content" / "module.py").touch(mode=0o600)
    with tarfile.open(wheelhouse._packed(tmp_path / "content", tmp_path / "x.tar", "w")) as tar:
        found = {member.name: (member.mode, member.uid, member.uname) for member in tar}
    assert found == {".": (0o755, 0, "root"), "./module.py": (0o644, 0, "root")}


def test_the_collection_installs_the_version_it_belongs_to() -> None:
    """The collection's own, and the one that the roles fall back to."""
    with open(ROOT / "pyproject.toml", "rb") as file:
        version = tomllib.load(file)["project"]["version"]
    assert read(COLLECTION / "galaxy.yml")["version"] == version
    for role in ("common", "node"):
        assert (
            f"granum_version | default('{version}')"
            in read(COLLECTION / f"roles/{role}/defaults/main.yml")[f"{role}_version"]
        )


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_every_setting_of_a_role_is_described(role: Path) -> None:
    """And nothing is described that does not exist, but for what has no default because it must be said."""
    options = read(role / "meta" / "argument_specs.yml")["argument_specs"]["main"]["options"]
    defaults = read(role / "defaults" / "main.yml")
    assert set(defaults) - set(options) == set()
    assert {name for name, spec in options.items() if name not in defaults and not spec.get("required")} == set()


def test_the_sample_inventory_names_every_setting_of_the_cluster() -> None:
    """Whoever reads it knows what can be said; the address is said for one machine, in hosts.yml."""
    asked = {
        name
        for role in ROLES
        for name in re.findall(r"\bgranum_[a-z_]+\b(?!\.)", (role / "defaults" / "main.yml").read_text())
    }
    said = "".join(file.read_text() for file in (COLLECTION / "inventory" / "sample").rglob("*.yml"))
    assert {name for name in asked if not re.search(rf"^\s*(# )?{name}:", said, re.MULTILINE)} == set()


@pytest.fixture(scope="module")
def probe() -> ModuleType:
    """The program that looks at a machine."""
    spec = importlib.util.spec_from_file_location("probe", COLLECTION / "roles/common/files/probe.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_multicast_from_an_address_that_the_machine_does_not_have_is_blocked(probe: ModuleType) -> None:
    """With the reason that the kernel gives."""
    assert probe.multicast("192.0.2.1") != ""


def test_the_narrowest_network_says_what_a_machine_may(probe: ModuleType) -> None:
    """As the gate of a node does."""
    networks = [{"cidr": "10.0.0.0/24", "access": "ro"}, {"cidr": "10.0.0.8/29", "access": "rw"}]
    assert probe.access("10.0.0.9", networks) == "rw"
    assert probe.access("10.0.0.7", networks) == "ro"
    assert probe.access("10.0.1.9", networks) == ""
    assert probe.access("", networks) == ""


def test_room_is_told_where_a_directory_is_still_to_be_made(probe: ModuleType, tmp_path: Path) -> None:
    """That of the file system it will lie on."""
    assert probe.free(str(tmp_path / "a" / "b")) > 0
    assert probe.listed(str(tmp_path / "a")) == []
    assert probe.version_of("no-such-python") == ""


@pytest.mark.skipif(not (ENVIRONMENT / "made-from").exists(), reason="no ansible here; make deploy-tools fetches it")
def test_a_node_understands_the_settings_that_the_role_writes(tmp_path: Path) -> None:
    """A network that is the node's own address is not named twice, and further settings arrive."""
    variables = {
        "ansible_managed": "granum",
        "granum_address": "10.0.0.11",
        "granum_cluster_name": "lab",
        "granum_networks": [{"cidr": "10.0.0.0/24", "access": "rw"}, {"cidr": "10.0.0.11/32", "access": "ro"}],
        "node_settings": {"quota": {"alice": "2TB"}},
    }
    (tmp_path / "variables.yml").write_text(yaml.safe_dump(variables))
    written = tmp_path / "node.yaml"
    role = COLLECTION / "roles/node"
    extra = ("-e", f"@{role / 'defaults/main.yml'}", "-e", f"@{tmp_path / 'variables.yml'}")
    template = ("-m", "template", "-a", f"src={role / 'templates/etc/granum/node.yaml.j2'} dest={written}")
    ansible = (ENVIRONMENT / "bin" / "ansible", "localhost", "-i", "localhost,", "-c", "local", *extra, *template)
    done = subprocess.run(ansible, cwd=COLLECTION, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    config = resolve(read_files(str(written))[:1])
    assert (config.root, config.cluster, config.bind) == ("/srv/granum/data", "lab", ("10.0.0.11",))
    assert [(str(entry.network), entry.writes) for entry in config.allow] == [
        ("10.0.0.11/32", True),
        ("10.0.0.0/24", True),
    ]
    assert config.quota == {"alice": 2_000_000_000_000}


def test_the_pins_of_a_machine_are_those_of_development() -> None:
    """What the tests ran with is what is installed."""

    def versions(name: str) -> set[str]:
        text = (ROOT / "requirements" / name).read_text().replace("\\\n", " ")
        entries = [
            Requirement(entry.split(" --hash")[0]) for entry in text.splitlines() if entry and not entry.startswith("#")
        ]
        return {f"{entry.name}{entry.specifier}" for entry in entries}

    assert versions("host.txt") - versions("lock.txt") == set()
