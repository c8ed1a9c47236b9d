"""Configuration: the strongest place wins, misspelt keys are refused, and every value knows where it is from."""

import pytest

from granum.config import Config, Layer, load, resolve
from granum.wire.errors import BadConfig


@pytest.fixture
def machine(tmp_path):
    """A machine without any configuration: a function that writes files and loads."""

    def write_and_load(files: dict[str, str], options=None, environment=None) -> Config:
        for name, text in files.items():
            file = tmp_path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        return load(
            options,
            {"HOME": str(tmp_path / "home"), **(environment or {})},
            system_directory=str(tmp_path / "etc/granum"),
            pyme_files=("~/.PYME/config.yaml", str(tmp_path / "etc/PYME/config.yaml")),
        )

    return write_and_load


OWN = "home/.config/granum/config.yaml"
PLACES = [
    ("home/.config/granum/config.yaml", "cluster: user"),
    ("etc/granum/client.yaml", "cluster: machine"),
    ("etc/granum/node.yaml", "cluster: node\nroot: /srv/store"),
    ("home/.PYME/config.yaml", "dataserver-filter: pyme-user"),
    ("etc/PYME/config.yaml", "dataserver-filter: pyme-machine"),
]


def test_nothing_is_configured_by_default(machine, tmp_path) -> None:
    overflow = str(tmp_path / "home/.local/state/granum/overflow")
    assert machine({}) == Config(cluster="", nodes=(), local_stores=(), port=15348, overflow_dir=overflow)
    assert set(machine({}).origins.values()) == {"default"}


def test_the_overflow_lies_where_other_state_does_or_where_one_says(machine, tmp_path) -> None:
    assert machine({}, None, {"XDG_STATE_HOME": "/state"}).overflow_dir == "/state/granum/overflow"
    config = machine({OWN: "overflow_dir: /fast\noverflow_bytes_max: 1000"})
    assert (config.overflow_dir, config.overflow_bytes_max) == ("/fast", 1000)
    assert config.origins["overflow_dir"] == str(tmp_path / OWN)
    assert machine({}, None, {"GRANUM_OVERFLOW_BYTES_MAX": "5"}).overflow_bytes_max == 5


@pytest.mark.parametrize("size", ["0", "-1", "much", "true", "1.5"])
def test_a_bad_size_of_the_overflow_is_refused(machine, size: str) -> None:
    with pytest.raises(BadConfig, match="overflow_bytes_max"):
        machine({OWN: f"overflow_bytes_max: {size}"})


def test_the_command_line_wins_over_everything(machine) -> None:
    config = machine(dict(PLACES), {"cluster": "typed"}, {"GRANUM_CLUSTER": "environment"})
    assert (config.cluster, config.origins["cluster"]) == ("typed", "command line")


def test_the_environment_wins_over_files(machine) -> None:
    config = machine(dict(PLACES), {"cluster": None}, {"GRANUM_CLUSTER": "environment"})
    assert (config.cluster, config.origins["cluster"]) == ("environment", "GRANUM_CLUSTER")


@pytest.mark.parametrize("strongest", range(5))
def test_files_are_asked_in_their_order(machine, tmp_path, strongest: int) -> None:
    config = machine(dict(PLACES[strongest:]))
    expected = ["user", "machine", "node", "pyme-user", "pyme-machine"][strongest]
    assert (config.cluster, config.origins["cluster"]) == (expected, str(tmp_path / PLACES[strongest][0]))


def test_the_user_directory_may_be_elsewhere(machine, tmp_path) -> None:
    config = machine({"xdg/granum/config.yaml": "cluster: lab"}, None, {"XDG_CONFIG_HOME": str(tmp_path / "xdg")})
    assert config.cluster == "lab"


def test_settings_from_different_places_come_together(machine) -> None:
    config = machine(
        {OWN: "nodes: [a:1, b]", "etc/PYME/config.yaml": "dataserver-root: /data\ndataserver-port: 9999"},
        None,
        {"GRANUM_CLUSTER": "lab"},
    )
    assert (config.cluster, config.nodes, config.local_stores, config.port) == ("lab", ("a:1", "b"), ("/data",), 9999)


def test_lists_in_the_environment_are_separated(machine) -> None:
    config = machine({}, None, {"GRANUM_NODES": "a:1, b:2", "GRANUM_LOCAL_STORES": "/x:/y"})
    assert (config.nodes, config.local_stores) == (("a:1", "b:2"), ("/x", "/y"))


def test_an_unknown_key_in_our_file_is_refused_with_file_and_key(machine, tmp_path) -> None:
    with pytest.raises(BadConfig, match=r"home/\.config/granum/config\.yaml: there is no setting 'clutser'"):
        machine({OWN: "clutser: lab"})


def test_keys_of_others_in_their_files_are_ignored(machine) -> None:
    nothing = machine({})
    config = machine({"etc/granum/node.yaml": "bind: 10.0.0.1", "home/.PYME/config.yaml": "VisGUI-new_layout: true"})
    assert config == nothing


def test_a_bad_value_is_refused_even_where_a_stronger_place_wins(machine) -> None:
    with pytest.raises(BadConfig, match="port must be a number from 1 to 65535, not 'many'"):
        machine({OWN: "port: many"}, {"port": 1})


@pytest.mark.parametrize("text", ["a: [", "- a\n- b", "\x00"])
def test_a_file_that_is_no_mapping_is_refused_with_its_name(machine, text: str) -> None:
    with pytest.raises(BadConfig, match=r"config\.yaml"):
        machine({OWN: text})


def test_an_empty_file_sets_nothing(machine) -> None:
    assert machine({}) == machine({OWN: "# nothing yet\n"})


def test_resolving_reads_nothing() -> None:
    config = resolve([Layer("one", {"cluster": "a"}), Layer("two", {"cluster": "b", "nodes": "c:1"})])
    assert (config.cluster, config.nodes, config.origins["nodes"]) == ("a", ("c:1",), "two")


def test_the_placement_is_a_setting_and_a_wrong_name_is_refused_where_it_stands(machine) -> None:
    assert machine({OWN: "placement: chunk:10"}).placement == "chunk:10"
    assert machine({}, None, {"GRANUM_PLACEMENT": "pinned:scope1"}).placement == "pinned:scope1"
    with pytest.raises(BadConfig, match=r"config\.yaml: there is no placement 'hsah'; there are .*hash"):
        machine({OWN: "placement: hsah"})
