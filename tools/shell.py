"""One bash that lives through a document, so that what a command leaves behind, daemons too, is there for the next one.

The rule: every command has an output file of its own, which it keeps when it goes on in the background; a daemon's log never
mixes with what a later command prints. Leaving the shell ends everything that was started in it. It knows nothing of documents.
"""

import os
import select
import signal
import subprocess
import sys
import time
from types import TracebackType
from typing import Self

# How long the processes of a shell may take to stop when asked; a node that syncs its store needs well below a second.
STOP_S = 3.0
POLL_S = 0.02


class ShellFailed(Exception):
    """A command took too long or ended the shell itself."""


class Shell:
    """A persistent bash in a scratch directory; use it in a `with` statement."""

    def __init__(self, scratch: str, checkout: str) -> None:
        """Keep home, temporary and output files below *scratch*; commands start in its `work`, which looks like *checkout*."""
        self._scratch = scratch
        self._checkout = checkout
        self._count = 0
        self._status: int = -1

    def __enter__(self) -> Self:
        """Start bash, as the leader of a process group of its own."""
        for name in ("work", "home", "tmp", "out", "run"):
            os.mkdir(os.path.join(self._scratch, name), 0o700)
        for name in os.listdir(self._checkout):
            if name == ".venv" or not name.startswith("."):
                os.symlink(os.path.join(self._checkout, name), os.path.join(self._scratch, "work", name))
        self._status, control = os.pipe()
        self._bash = subprocess.Popen(
            ("bash", "--noprofile", "--norc"),
            stdin=subprocess.PIPE,
            cwd=os.path.join(self._scratch, "work"),
            env=environment(self._scratch),
            pass_fds=(control,),
            start_new_session=True,
        )
        self._control = control
        os.close(control)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop bash and everything that was started in it: politely first, then surely."""
        self._signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_S
        while self._signal(0) and time.monotonic() < deadline:
            self._bash.poll()
            select.select([], [], [], POLL_S)
        self._signal(signal.SIGKILL)
        if self._bash.stdin is not None:
            self._bash.stdin.close()
        self._bash.wait()
        os.close(self._status)

    def run(self, command: str, timeout_s: float) -> tuple[int, str]:
        """Run *command* and give its status and the path of its output, which a daemon may go on writing to."""
        self._count += 1
        output = os.path.join(self._scratch, "out", f"{self._count}.txt")
        script = os.path.join(self._scratch, "out", f"{self._count}.sh")
        with open(script, "w", encoding="utf-8") as file:
            file.write(command + "\n")
        assert self._bash.stdin is not None
        # The control descriptor is closed for the command, so that a daemon does not hold it open past the shell's end.
        line = f"{{ . '{script}'; }} >'{output}' 2>&1 </dev/null {self._control}>&-; echo $? >&{self._control}\n"
        try:
            self._bash.stdin.write(line.encode())
            self._bash.stdin.flush()
        except BrokenPipeError:
            raise ShellFailed("the shell has ended") from None
        return self._await_status(timeout_s), output

    def _await_status(self, timeout_s: float) -> int:
        ready, _, _ = select.select([self._status], [], [], timeout_s)
        if not ready:
            raise ShellFailed(f"took longer than {timeout_s:g} s")
        answer = os.read(self._status, 64)
        if not answer:
            raise ShellFailed("ended the shell")
        return int(answer)

    def _signal(self, number: int) -> bool:
        """Send a signal to all that was started; whether anything was there to get it."""
        try:
            os.killpg(self._bash.pid, number)
        except ProcessLookupError:
            return False
        return True


def environment(scratch: str) -> dict[str, str]:
    """Give a command the environment of a reader who has just installed granum: nothing of this user's own configuration."""
    ours = {name: text for name, text in os.environ.items() if not name.startswith(("GRANUM_", "XDG_", "PYTHON"))}
    home = os.path.join(scratch, "home")
    return ours | {
        "PATH": os.pathsep.join((os.path.join(sys.prefix, "bin"), ours.get("PATH", os.defpath))),
        "HOME": home,
        "TMPDIR": os.path.join(scratch, "tmp"),
        "XDG_RUNTIME_DIR": os.path.join(scratch, "run"),
        "XDG_CONFIG_HOME": os.path.join(home, ".config"),
        "XDG_CACHE_HOME": os.path.join(home, ".cache"),
        "XDG_DATA_HOME": os.path.join(home, ".local", "share"),
        "XDG_STATE_HOME": os.path.join(home, ".local", "state"),
        "LANG": "C.UTF-8",
        "LC_ALL": "C.UTF-8",
        "COLUMNS": "120",
        "NO_COLOR": "1",
        "TERM": "dumb",
        # Output of a Python program reaches its file line by line, so that a document can wait for a daemon's first words.
        "PYTHONUNBUFFERED": "1",
    }
