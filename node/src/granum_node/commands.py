"""The commands `granum-node quarantine …`: what a person decides about files that are not what was put."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import click

from granum.wire.errors import GranumError, StoreUnusable
from granum_node.config import environment_layer, read_files, resolve
from granum_node.storage.quarantine import Note, opened_quarantine

EXIT_USAGE = 2  # something that the caller must correct
Command = TypeVar("Command", bound=Callable[..., object])


def store_options(command: Command) -> Command:
    """Add the options that say which store is meant."""
    config = click.option("--config", metavar="FILE", help="Settings in YAML, of which the root is taken.")
    root = click.option("--root", "-r", metavar="DIR", help="The store, which may be served meanwhile.")
    return root(config(command))


def root_of(root: str | None, config: str | None) -> str:
    """Return the store that is meant; raise BadConfig when none is."""
    return resolve([("the command line", {"root": root}), environment_layer(os.environ), *read_files(config)]).root


def printable(name: str) -> str:
    """Return *name* without what a terminal would obey, and on one line."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in name)


@click.group("quarantine", subcommand_metavar="[list | restore | drop] ...")
def quarantine() -> None:
    """Look after files that were moved out of the way because they are not what was put.

    The name of such a file is answered with an error and takes no put until the file is restored or dropped. The files lie in
    .granum/quarantine of the store; the node never deletes one.
    """


@quarantine.command("list")
@store_options
def list_notes(root: str | None, config: str | None) -> None:
    """Name the files, why each lies there, its size, and the digest that it should have and has."""
    with _told(), opened_quarantine(root_of(root, config)) as found:
        for note in found.notes:
            click.echo(line_of(note))


@quarantine.command("restore")
@click.argument("path")
@click.option("--as-it-is", is_flag=True, help="Even if its bytes are not those that were put.")
@store_options
def restore(path: str, root: str | None, config: str | None, *, as_it_is: bool) -> None:
    """Give the file PATH its name back.

    It must have the digest that was recorded for it: write the right bytes, from a copy, into the file that 'list' names.
    """
    with _told(), opened_quarantine(root_of(root, config)) as found, _refused(path):
        found.restore(path.strip("/"), as_it_is=as_it_is)


@quarantine.command("drop")
@click.argument("path")
@store_options
def drop(path: str, root: str | None, config: str | None) -> None:
    """Delete the file PATH from the quarantine; its name is free then."""
    with _told(), opened_quarantine(root_of(root, config)) as found, _refused(path):
        found.drop(path.strip("/"))


def line_of(note: Note) -> str:
    """Return what is printed of *note*."""
    digests = f"should have {note.expected or 'a digest'}, has {note.found or 'none'}"
    return f"/{printable(note.path)}: {note.cause}; {note.size} bytes; {digests}; .granum/quarantine/{note.id}"


@contextmanager
def _refused(path: str) -> Iterator[None]:
    """Have what the disk, or the owner of a file, refuses told like every other error."""
    try:
        yield
    except OSError as error:
        if isinstance(error, GranumError):
            raise
        raise StoreUnusable(f"/{printable(path.strip('/'))}: {error.strerror}") from error


@contextmanager
def _told() -> Iterator[None]:
    """Say an error of the family as one line, and end with the status of wrong usage."""
    try:
        yield
    except GranumError as error:
        click.echo(f"granum-node: {error}", err=True)
        sys.exit(EXIT_USAGE)
