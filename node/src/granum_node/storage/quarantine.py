"""The quarantine: files that are not what was put, out of everybody's way and never deleted by the node.

A file is moved to `.granum/quarantine/ID`, and a note, `ID.json`, says what it was called, why it lies there, and which digest it
should have. The note is on the disk before the file is moved, so a node that is killed in between finishes the move when it
opens the store. While its note is there the name answers with `Corrupt` and takes no put: what was promised for it can only be
kept by the bytes that were put. A person ends that with `restore` or `drop`, also while the node serves: the node looks for the
note whenever such a name is asked for.
"""

import json
import os
import re
import uuid
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, fields

from granum.wire.digest import Digest
from granum.wire.errors import AlreadyStored, Corrupt, DigestMismatch, NotADirectory, NotStored, StoreUnusable
from granum.wire.paths import HIDDEN_NAME, ClusterPath
from granum_node.storage import digestlog
from granum_node.storage.digest import digest_of, record
from granum_node.storage.listing import is_listed
from granum_node.storage.tree import Tree, mapped

DIRECTORY = "quarantine"
_ID = re.compile("[0-9a-f]{32}")
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Note:
    """Why a file lies in quarantine under *id*; *path* is its name below the root, 'a/b', *inode* tells it from others.

    *expected* is the digest that was recorded for it and *found* that of its bytes, both as `str` writes them, '' for none.
    """

    id: str
    path: str
    cause: str
    expected: str
    found: str
    size: int
    inode: int


class Quarantine:
    """The quarantine of one store, *tree*, whose hidden directory is *state*; the caller keeps both."""

    def __init__(self, tree: Tree, state: int) -> None:
        self._tree = tree
        self._state = state
        self._notes = {note.path: note for note in self._read()}
        tree.is_kept = lambda path: bool(self._notes) and self._holds(path.parts)

    def finish(self) -> None:
        """Finish what a node that was killed had begun; to be called before the store is served."""
        for note in self._notes.values():
            with suppress(OSError, NotStored):  # moved already, or removed by somebody: the note counts either way
                self._move(note)

    def __len__(self) -> int:
        return len(self._notes)

    def __contains__(self, path: str) -> bool:
        return path in self._notes

    @property
    def notes(self) -> list[Note]:
        """The notes, by the names of the files."""
        return [self._notes[path] for path in sorted(self._notes)]

    def check(self, path: ClusterPath) -> None:
        """Raise Corrupt when *path*, which is not stored, is the name of a file in quarantine."""
        if self._notes and self._holds(path.parts):
            raise Corrupt(
                f"{path} is damaged on this node: its bytes are not those that were put; "
                "who looks after the node finds it in quarantine"
            )

    def check_put(self, path: ClusterPath) -> None:
        """Raise AlreadyStored when *path* is the name of a file in quarantine, NotADirectory when a part of it is."""
        if not self._notes:
            return
        if self._holds(path.parts):
            raise AlreadyStored(
                f"{path} is already stored on this node, and damaged; who looks after the node can free it"
            )
        if any(self._holds(path.parts[:end]) for end in range(1, len(path.parts))):
            raise NotADirectory(f"a part of {path} is a file, so nothing can be stored below it")

    def below(self, path: ClusterPath) -> dict[str, int]:
        """Return names and sizes of the files in quarantine that belong into the directory *path*."""
        prefix = "".join(f"{part}/" for part in path.parts)
        found = [note for name, note in list(self._notes.items()) if name.startswith(prefix)]
        rests = {note.path[len(prefix) :]: note for note in found if "/" not in note.path[len(prefix) :]}
        return {
            name: note.size
            for name, note in rests.items()
            if is_listed(name, top=not path.parts) and self._holds((*path.parts, name))
        }

    def _holds(self, parts: tuple[str, ...]) -> bool:
        note = self._notes.get("/".join(parts))
        if note is None:
            return False
        if self._is_noted(note):
            return True
        self._notes.pop(note.path, None)  # a person has dropped or restored it
        return False

    def take(self, path: str, cause: str, expected: Digest | None, found: Digest | None, inode: int, size: int) -> bool:
        """Move the file *path*, 'a/b', here; False when it is not the one with this *inode* any more.

        Raises OSError when the disk does not take note of it; then nothing is moved.
        """
        note = Note(uuid.uuid4().hex, path, cause, str(expected or ""), str(found or ""), size, inode)
        parent, name = self._parent(path)
        try:
            if os.stat(name, dir_fd=parent, follow_symlinks=False).st_ino != inode:
                return False
        except FileNotFoundError:
            return False
        finally:
            os.close(parent)
        self._write(note)
        self._notes[path] = note  # before the name is free: a put that comes now must find it taken
        self._move(note)
        return True

    def restore(self, path: str, *, as_it_is: bool = False) -> None:
        """Give the file *path* its name back; its bytes must have the digest that was recorded, unless it is wanted *as_it_is*.

        Raises NotStored when there is none in quarantine, DigestMismatch, or AlreadyStored when the name is taken.
        """
        note = self._note(path)
        parent, name = self._parent(path)
        source = f"{DIRECTORY}/{note.id}"
        try:
            fd = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._state)
            try:
                found = digest_of(fd)
                if str(found) != note.expected and not as_it_is:
                    raise DigestMismatch(
                        f"/{path} does not have the digest that was recorded for it; write the right bytes into "
                        f".granum/{source} first, or give it back as it is"
                    )
                _set_digest(fd, found)
                size = os.fstat(fd).st_size
                os.fsync(fd)
            finally:
                os.close(fd)
            try:
                os.link(source, name, src_dir_fd=self._state, dst_dir_fd=parent, follow_symlinks=False)
            except FileExistsError:
                raise AlreadyStored(f"/{path}: another file has that name now; drop the one in quarantine") from None
            os.fsync(parent)
        finally:
            os.close(parent)
        directory, _, _ = path.rpartition("/")
        digestlog.append(self._state, directory, [digestlog.encode(name, found, size)])
        self.drop(path)

    def drop(self, path: str) -> None:
        """Delete the file *path* from the quarantine, and its note, which keeps its name; raise NotStored when there is none."""
        note = self._note(path)
        with suppress(FileNotFoundError):
            os.unlink(f"{DIRECTORY}/{note.id}", dir_fd=self._state)
        os.unlink(f"{DIRECTORY}/{note.id}.json", dir_fd=self._state)
        self._notes.pop(path, None)

    def _note(self, path: str) -> Note:
        note = self._notes.get(path)
        if note is None:
            raise NotStored(f"/{path} is not in quarantine")
        return note

    def _is_noted(self, note: Note) -> bool:
        try:
            os.stat(f"{DIRECTORY}/{note.id}.json", dir_fd=self._state)
        except FileNotFoundError:
            return False
        return True

    def _read(self) -> Iterable[Note]:
        try:
            directory = os.open(DIRECTORY, _OPEN_DIRECTORY, dir_fd=self._state)
        except FileNotFoundError:
            return
        try:
            for name in os.listdir(directory):
                if name.endswith(".json"):
                    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
                    # A note cut short was never on the disk as a whole, so its file has not been moved.
                    with open(fd, "rb") as file, suppress(ValueError, TypeError, RecursionError):
                        note = Note(**json.load(file))
                        if name == f"{note.id}.json" and _is_sound(note):
                            yield note
        finally:
            os.close(directory)

    def _write(self, note: Note) -> None:
        with suppress(FileExistsError):
            os.mkdir(DIRECTORY, 0o700, dir_fd=self._state)
            os.fsync(self._state)
        directory = os.open(DIRECTORY, _OPEN_DIRECTORY, dir_fd=self._state)
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            with open(os.open(f"{note.id}.json", flags, 0o600, dir_fd=directory), "w", encoding="ascii") as file:
                json.dump(asdict(note), file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            os.fsync(directory)
        finally:
            os.close(directory)

    def _move(self, note: Note) -> None:
        """Move the file of *note*; raise OSError or NotStored when it is not under its name."""
        parent, name = self._parent(note.path)
        try:
            # A put that found no note looks again when it links, and by then the name is taken or the note is there.
            with self._tree.naming(_path_of(note)):
                is_there = os.stat(name, dir_fd=parent, follow_symlinks=False).st_ino == note.inode
                if is_there:
                    os.rename(name, f"{DIRECTORY}/{note.id}", src_dir_fd=parent, dst_dir_fd=self._state)
            if is_there:
                os.fsync(parent)
        finally:
            os.close(parent)

    def _parent(self, path: str) -> tuple[int, str]:
        directory, _, name = path.rpartition("/")
        where = ClusterPath(
            tuple(directory.split("/")) if directory else ()
        )  # names of files found, so not checked again
        with mapped(where):
            return self._tree.open_directory(where), name


@contextmanager
def opened_quarantine(root: str) -> Iterator[Quarantine]:
    """Open the quarantine of the store in the directory *root*, which may be served meanwhile; raise StoreUnusable."""
    with ExitStack() as opened:
        try:
            top = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            opened.callback(os.close, top)
            state = os.open(HIDDEN_NAME, _OPEN_DIRECTORY, dir_fd=top)
            opened.callback(os.close, state)
            found = Quarantine(Tree(top), state)
        except OSError as error:
            raise StoreUnusable(f"{HIDDEN_NAME} in the store {root} cannot be read: {error.strerror}") from error
        yield found


def _is_sound(note: Note) -> bool:
    """Whether a node may have written *note*: what root does by it must not lead to other files."""
    types = {each.name: str for each in fields(Note)} | {"size": int, "inode": int}
    if any(type(getattr(note, name)) is not kind for name, kind in types.items()):
        return False
    return _ID.fullmatch(note.id) is not None and {"", ".", "..", HIDDEN_NAME}.isdisjoint(note.path.split("/"))


def _path_of(note: Note) -> ClusterPath:
    return ClusterPath(tuple(note.path.split("/")))


def _set_digest(fd: int, digest: Digest) -> None:
    """Keep *digest* with the file *fd*, whose mode forbids it; where the file system keeps none, its record in the log counts."""
    mode = os.fstat(fd).st_mode & 0o7777
    os.fchmod(fd, mode | 0o200)
    with suppress(OSError):
        record(fd, digest)
    os.fchmod(fd, mode & ~0o222)
