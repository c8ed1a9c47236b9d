"""What the command says before it does anything."""

import subprocess
import sys
from typing import Any

import click
import pytest
from click.testing import CliRunner

from granum.cli import app

COMMANDS = {
    "nodes": [],
    "ls": [],
    "tree": [],
    "stat": [],
    "locate": [],
    "put": [],
    "get": [],
    "mkdir": [],
    "series": ["put", "get", "info"],
    "serve": [],
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
    ("shell", "mark"), [("bash", "complete -o"), ("zsh", "#compdef granum"), ("fish", "complete --")]
)
def test_completion_prints_the_script_of_the_shell(shell: str, mark: str) -> None:
    assert mark in CliRunner().invoke(app, ["completion", shell]).output


def test_options_may_stand_before_and_after_the_command() -> None:
    """What stands later wins; nodes are added up."""
    seen: list[Any] = []

    @app.command("look-at-choices")
    @click.pass_obj
    def look(choices: Any) -> None:
        seen.append(choices)

    try:
        arguments = ["-c", "a", "-n", "h:1", "--json", "look-at-choices", "-c", "b", "-n", "h:2", "--no-discovery"]
        assert CliRunner().invoke(app, arguments).exit_code == 0
    finally:
        del app.commands["look-at-choices"]
    (choices,) = seen
    assert choices.cluster == "b"
    assert choices.nodes == ("h:1", "h:2")
    assert (choices.json, choices.discovery, choices.quiet, choices.expect) == (True, False, False, None)
