"""The scrub: reads the whole store again and again, and moves what is damaged into quarantine.

It is a thread of the node, and not a process with a low priority: what it does outside the kernel takes microseconds for each
piece, and a thread of low priority could be put aside while it holds the interpreter, and the node with it. Instead it rests.
After each piece it waits so long that a cycle takes as long as it should, and at least REST times as long as the piece took,
BUSY_REST times while the node has much to do; and it reads with idle priority. How far it is outlives the process.
"""

import json
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace

from granum.wire.errors import GranumError
from granum.wire.paths import ClusterPath
from granum_node.storage.digestlog import DigestLog
from granum_node.storage.kernel import be_idle_reader
from granum_node.storage.quarantine import Quarantine
from granum_node.storage.verify import State, Verdict, examine, examine_file

FILE = "scrub"
REST, BUSY_REST = 9, 99  # a tenth of a disk that is idle, a hundredth of one that is not
ENTRY_BYTES = 4096  # what a file costs beside its bytes, in bytes: it takes at least as many on the disk
NAMES_AT_ONCE = 8192  # of one directory, in memory for as long as it takes to read these files
REST_MIN_S = 0.005  # shorter rests are put together: waiting has a price too
SAVE_S = 60.0  # at most so much is read twice when the node is killed


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the scrub is: *after* which file, in a cycle that has lasted *elapsed_s* of the node's life, *cycles* before it."""

    after: str = ""
    elapsed_s: float = 0.0
    done: bool = False  # whether everything is read, and the rest of the cycle's time is waited out
    cycles: int = 0
    age_s: float = 0.0  # since the last cycle's reading was complete, in the node's life


@dataclass(slots=True)
class Found:
    """What the scrub has met since the node started."""

    files: int = 0
    bytes: int = 0
    damaged: int = 0  # and moved into quarantine, if the disk took note of it
    bare: int = 0  # their digest is in the log alone
    unreadable: int = 0


class _Stopped(Exception):
    """In the middle of a file."""


class Scrub:
    """Scrubs the store in the directory *root* whose hidden directory is *state*, a cycle each *cycle_s*; `start` begins."""

    def __init__(
        self,
        root: int,
        state: int,
        log: DigestLog,
        quarantine: Quarantine,
        cycle_s: float,
        used_bytes: Callable[[], int],
        tell: Callable[[Verdict], None] = lambda _: None,
    ) -> None:
        """Keep duplicates of both descriptors.

        *used_bytes* says how much there is to read, or more. *tell* is told, in the thread of the scrub, of every file that is
        not good, but of none that has no digest.
        """
        self._root, self._state = os.dup(root), os.dup(state)
        self._log = log
        self._quarantine = quarantine
        self._cycle_s = cycle_s
        self._used_bytes = used_bytes
        self._tell = tell
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="granum-scrub", daemon=True)
        self._rate = 1.0  # bytes in a second
        self._owed_s = 0.0
        self._mark = self._saved = time.monotonic()
        self.busy = False  # set from outside, while the node has much to do
        self.found = Found()
        self.progress = self._load()

    def start(self) -> None:
        """Begin where it was."""
        self._thread.start()

    def stop(self, wait_s: float = 2.0) -> None:
        """End, and keep how far it is; one that hangs on a dead disk after *wait_s* keeps its descriptors."""
        self._stopped.set()
        if self._thread.ident is not None:
            self._thread.join(wait_s)
        if not self._thread.is_alive():
            os.close(self._root)
            os.close(self._state)

    @property
    def age_s(self) -> float | None:
        """How long ago a reading of the whole store was complete; None when none ever was."""
        return self.progress.age_s if self.progress.cycles else None

    def report(self) -> dict[str, object]:
        """Return what is told of the scrub: what it has met since the start, and the last complete reading."""
        return asdict(self.found) | {"cycles": self.progress.cycles, "age_s": self.age_s}

    def _run(self) -> None:
        be_idle_reader()
        while not self._stopped.is_set():
            with suppress(
                _Stopped, OSError
            ):  # the disk fails; whoever reads or writes is told, and the next round may go better
                self._cycle()
            self._stopped.wait(1.0)
        with suppress(OSError):
            self._save()

    def _cycle(self) -> None:
        if not self.progress.done:
            self._rate = max(1.0, 2 * self._used_bytes() / self._cycle_s)  # a cycle must not take longer
            self._mark = time.monotonic()
            for verdict in examine(self._root, self.progress.after, self._read, NAMES_AT_ONCE):
                self._take(verdict)
            self._log.remove_orphans(self._root)
            self._advance(done=True, cycles=self.progress.cycles + 1, age_s=0.0)
            self._save()
        self._wait(self._cycle_s - self.progress.elapsed_s)
        if not self._stopped.is_set():
            self._advance(after="", elapsed_s=0.0, done=False)

    def _read(self, size: int) -> None:
        """Rest for a piece of *size* bytes that was just read; raise _Stopped when no more is to be read."""
        if self._stopped.is_set():
            raise _Stopped
        self.found.bytes += size
        self._rest(size)

    def _rest(self, size: int) -> None:
        took_s = time.monotonic() - self._mark
        self._owed_s += max(size / self._rate, took_s * (BUSY_REST if self.busy else REST))
        self._advance()
        if self._owed_s >= REST_MIN_S:
            owed_s, self._owed_s = self._owed_s, 0.0
            self._wait(owed_s)

    def _wait(self, seconds: float) -> None:
        """Wait, and keep every now and then how far it is."""
        until = time.monotonic() + seconds
        while not self._stopped.is_set() and (left := until - time.monotonic()) > 0:
            if self._mark - self._saved > SAVE_S:
                self._save()
            self._stopped.wait(min(left, SAVE_S))
            self._advance()

    def _take(self, verdict: Verdict) -> None:
        self.found.files += 1
        if verdict.state is State.DAMAGED:
            verdict = self._again(verdict)
        match verdict.state:
            case State.DAMAGED:
                if self._put_aside(verdict):
                    self.found.damaged += 1
                    self._tell(verdict)
            case State.BARE:
                self.found.bare += 1
                self._tell(verdict)
            case State.UNREADABLE:
                self.found.unreadable += 1
                self._tell(verdict)
            case State.GOOD if not verdict.logged:
                # Moved here behind the node's back, or published by a node that was killed before it wrote the record.
                self._log.add(ClusterPath(tuple(verdict.name.split("/"))), verdict.expected, verdict.size)
        self._advance(after=verdict.name)
        self._rest(ENTRY_BYTES)

    def _put_aside(self, verdict: Verdict) -> bool:
        """Move what is damaged; return whether it is to be told, as it is, too, when the disk has no room even for a note."""
        try:
            return self._quarantine.take(
                verdict.name, "damaged", verdict.expected, verdict.found, verdict.inode, verdict.size
            )
        except GranumError:  # its directory is gone
            return False
        except OSError:  # it stays, and what comes behind it is read all the same; the next cycle meets it again
            return True

    def _again(self, verdict: Verdict) -> Verdict:
        """Return the verdict of a second look: what is moved must be damaged where it lies, not on its way here."""
        parent, _, name = verdict.name.rpartition("/")
        try:
            directory = os.open(parent or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._root)
        except FileNotFoundError:
            return replace(verdict, state=State.WITHOUT)
        try:
            record = self._log.read(parent).get(name)
            return examine_file(directory, name, verdict.name[: -len(name)], record, self._read)
        except FileNotFoundError:
            return replace(verdict, state=State.WITHOUT)
        except OSError:
            return replace(verdict, state=State.UNREADABLE)
        finally:
            os.close(directory)

    def _advance(self, **changes: object) -> None:
        now = time.monotonic()
        passed_s = now - self._mark
        self._mark = now
        aged = {"elapsed_s": self.progress.elapsed_s + passed_s, "age_s": self.progress.age_s + passed_s}
        self.progress = replace(self.progress, **(aged | changes))  # type: ignore[arg-type]

    def _save(self) -> None:
        self._saved = time.monotonic()
        fd = os.open(FILE + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600, dir_fd=self._state)
        with open(fd, "w", encoding="ascii") as file:
            json.dump(asdict(self.progress), file)
        os.rename(FILE + ".new", FILE, src_dir_fd=self._state, dst_dir_fd=self._state)

    def _load(self) -> Progress:
        """Return the progress that was saved; one that cannot be read means the beginning."""
        try:
            with open(os.open(FILE, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._state), "rb") as file:
                saved = json.load(file)
            known = Progress(**saved)
        except (OSError, ValueError, TypeError):
            return Progress()
        types = {each.name: type(getattr(Progress(), each.name)) for each in fields(Progress)}
        return known if all(type(value) is types[name] for name, value in saved.items()) else Progress()
