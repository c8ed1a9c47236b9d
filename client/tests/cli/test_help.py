"""What the command says before it does anything."""

import subprocess
import sys
from collections.abc import Callable, Iterator

import click
import pytest
from click.testing import CliRunner

from granum.cli import app
from granum.cli.options import Choices

COMMANDS = {
    "nodes": [],
    "top": [],
    "doctor": [],
    "ls": [],
    "tree": [],
    "find": [],
    "du": [],
    "stat": [],
    "locate": [],
    "cat": [],
    "put": [],
    "get": [],
    "cp": [],
    "sync": [],
    "mkdir": [],
    "series": ["put", "get", "info"],
    "serve": [],
    "bench": ["stream"],
    "overflow": ["status", "resume", "drop"],
    "config": ["show"],
    "completion": [],
}
LEAVES = [[name, *below] for name, subs in COMMANDS.items() for below in ([[sub] for sub in subs] or [[]])]


def test_help_names_every_command_once_under_a_heading() -> None:
    text = CliRunner().invoke(app, ["--help"]).output
    assert set(app.commands) == set(COMMANDS)
    for name in COMMANDS:
        assert text.count(f"\n  {name} ") == 1
    assert text.index("Look:") < text.index("Copy:") < text.index("This machine:")


@pytest.mark.parametrize("words", LEAVES, ids=" ".join)
def test_every_command_has_json_and_one_example_of_itself(words: list[str]) -> None:
    text = CliRunner().invoke(app, [*words, "--help"]).output
    assert "--json" in text
    assert text.count("Example:") == 1
    assert f"granum {' '.join(words)}" in text.partition("Example:")[2]


def test_version() -> None:
    assert CliRunner().invoke(app, ["--version"]).output == "granum 0.1.0\n"


@pytest.mark.parametrize(
    "arguments", [["--nonsense"], ["nonsense"], ["ls", "--wait", "0"], ["stat"], ["put", "/dev/null"]]
)
def test_bad_usage_is_status_2(arguments: list[str]) -> None:
    assert CliRunner().invoke(app, arguments).exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "variable"),
    [
        (["--help"], ""),
        (["ls", "--help"], ""),
        (["completion", "zsh"], ""),
        (["ls"], "bash_complete"),
    ],
)
def test_help_and_completion_import_nothing_heavy(arguments: list[str], variable: str) -> None:
    """They answer while a person waits for a key."""
    script = (
        "import sys; from granum.cli import main\n"
        "try: main()\n"
        "finally: print([name for name in ('twisted', 'numpy', 'yaml', 'zeroconf', 'rich') if name in sys.modules])"
    )
    environment = {"COMP_WORDS": "granum l", "COMP_CWORD": "1"}
    if variable:
        environment["_GRANUM_COMPLETE"] = variable
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], check=False, capture_output=True, text=True, env=environment
    )
    assert done.stdout.splitlines()[-1] == "[]", done


def test_completion_completes() -> None:
    done = CliRunner().invoke(
        app,
        prog_name="granum",
        env={"_GRANUM_COMPLETE": "bash_complete", "COMP_WORDS": "granum lo", "COMP_CWORD": "1"},
    )
    assert done.output == "plain,locate\n"


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("granum c", ["cat", "cp", "config", "completion"]),
        ("granum s", ["stat", "sync", "series", "serve"]),
        ("granum sync --d", ["--dry-run"]),
        ("granum find --type ", ["f", "d"]),
    ],
)
def test_completion_knows_the_commands_and_their_options(words: str, offered: list[str]) -> None:
    environment = {
        "_GRANUM_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
    }
    done = CliRunner().invoke(app, prog_name="granum", env=environment)
    assert done.output.splitlines() == [f"plain,{word}" for word in offered]


@pytest.mark.parametrize(
    ("shell", "mark"), [("bash", "complete -o"), ("zsh", "#compdef granum"), ("fish", "complete --")]
)
def test_completion_prints_the_script_of_the_shell(shell: str, mark: str) -> None:
    assert mark in CliRunner().invoke(app, ["completion", shell]).output


@pytest.fixture
def look() -> Iterator[Callable[..., Choices]]:
    """Runs the command with a command of ours that keeps the choices it is given, and returns them."""
    seen: list[Choices] = []

    @app.command("look-at-choices")
    @click.pass_obj
    def command(choices: Choices) -> None:
        seen.append(choices)

    def run(*arguments: str, **environment: str) -> Choices:
        assert CliRunner().invoke(app, arguments, env=environment).exit_code == 0
        return seen.pop()

    yield run
    del app.commands["look-at-choices"]


def test_options_may_stand_before_and_after_the_command(look: Callable[..., Choices]) -> None:
    """What stands later wins; nodes are added up."""
    before, after = ["-c", "a", "-n", "h:1", "--json"], ["-c", "b", "-n", "h:2", "--no-discovery"]
    choices = look(*before, "look-at-choices", *after)
    assert choices.cluster == "b"
    assert choices.nodes == ("h:1", "h:2")
    assert (choices.json, choices.discovery, choices.quiet, choices.expect) == (True, False, False, None)


@pytest.mark.parametrize(
    ("before", "after", "expect"), [([], [], 3), (["--wait", "5"], [], 5), ([], ["--wait", "4"], 4)]
)
def test_how_many_nodes_there_are_may_stand_in_the_environment(
    look: Callable[..., Choices], before: list[str], after: list[str], expect: int
) -> None:
    """What the command line says wins, before or after the command's name."""
    assert look(*before, "look-at-choices", *after, GRANUM_WAIT="3").expect == expect
