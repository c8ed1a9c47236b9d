"""`granum completion`: the script with which a shell completes commands and options; click makes it."""

import click
from click.shell_completion import get_completion_class

from granum.cli.options import Choices, Command, pass_choices
from granum.cli.output import print_json

VARIABLE = "_GRANUM_COMPLETE"  # what click looks for when the shell asks


@click.command(
    cls=Command,
    alone=True,
    example="granum completion bash > ~/.local/share/bash-completion/completions/granum",
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
@pass_choices
def completion(choices: Choices, ctx: click.Context, shell: str) -> None:
    """Print the script that completes commands and options.

    \b
    bash: ~/.local/share/bash-completion/completions/granum
    zsh:  a file _granum in a directory of $fpath
    fish: ~/.config/fish/completions/granum.fish
    """  # noqa: D301 - \b is click's mark for text that is not to be wrapped
    kind = get_completion_class(shell)
    assert kind is not None
    script = kind(ctx.find_root().command, {}, "granum", VARIABLE).source()
    if choices.json:
        print_json({"shell": shell, "script": script})
    else:
        click.echo(script)
