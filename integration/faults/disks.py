"""File systems to break: small images on loop devices, and disks served by a process that can be killed, slowed or logged.

Everything is undone in reverse order on exit, also after a failure and when the disk is dead: unmount, free the loop device,
stop the storage daemon, let go of its mount point. Needs root.
"""

import signal
import subprocess
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from integration.faults.waiting import until

MKFS = {
    "ext4": ("mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=0"),
    "xfs": ("mkfs.xfs", "-q", "-f"),
    "btrfs": ("mkfs.btrfs", "-q", "-f"),
}
SIZE_MIB = {"ext4": 128, "xfs": 320, "btrfs": 128}  # about the smallest that each mkfs makes sense of
LOG_MIB = 2048  # sparse; a run writes a few tens of MiB
STORAGE_DAEMON = ("qemu-storage-daemon", "fusermount3", "losetup")
READY_S = 10.0


def run(*command: str) -> str:
    """Run *command* and return what it printed; raise RuntimeError with its complaint when it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip() or done.returncode}")
    return done.stdout


def make_image(image: Path, kind: str, size_mib: int, options: Sequence[str] = ()) -> None:
    """Make a sparse file with an empty file system."""
    with image.open("wb") as file:
        file.truncate(size_mib << 20)
    run(*MKFS[kind], *options, str(image))


def unmount(mount: Path) -> None:
    """Unmount, at once or, when something is still open there, as soon as it is closed."""
    try:
        run("umount", str(mount))
    except RuntimeError:
        with suppress(RuntimeError):
            run("umount", "-l", str(mount))


class Image(AbstractContextManager["Image"]):
    """A file system of *kind* in a file, mounted at `mount`; an existing *image* is mounted as it is."""

    def __init__(self, directory: Path, kind: str = "ext4", size_mib: int = 64, options: Sequence[str] = ()) -> None:
        directory.mkdir(exist_ok=True)
        self.mount = directory / "mnt"
        self.image = directory / "image"
        self._kind = kind
        self._size_mib = size_mib
        self._options = options

    def __enter__(self) -> Self:
        self.mount.mkdir(exist_ok=True)
        if not self.image.exists():
            make_image(self.image, self._kind, self._size_mib, self._options)
        # A restored image carries the same uuid as a file system that may still be mounted.
        run("mount", "-o", "loop,nouuid" if self._kind == "xfs" else "loop", str(self.image), str(self.mount))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        unmount(self.mount)


class ServedDisk(AbstractContextManager["ServedDisk"]):
    """A mounted disk behind a storage daemon: image → (log | throttle) → FUSE → loop → file system at `mount`.

    `unplug` makes it fail for good. With *logged* every write and flush is kept in `log`, from an image equal to `pristine`;
    `image` is what it ended as.
    """

    def __init__(
        self,
        directory: Path,
        kind: str = "ext4",
        *,
        size_mib: int = 0,
        logged: bool = False,
        bytes_per_s: int = 0,
    ) -> None:
        directory.mkdir(exist_ok=True)
        self.kind = kind
        self.mount = directory / "mnt"
        self.log = directory / "log.img"
        self.pristine = directory / "pristine.img"
        self.image = directory / "base.img"
        self._export = directory / "export"
        self._pidfile = directory / "qsd.pid"
        self._size_mib = size_mib or SIZE_MIB[kind]
        self._logged = logged
        self._bytes_per_s = bytes_per_s
        self._daemon: subprocess.Popen[bytes] | None = None
        self._undo = ExitStack()

    def unplug(self) -> None:
        """Let the disk die: from now on every access to it fails."""
        assert self._daemon is not None
        self._daemon.send_signal(signal.SIGKILL)
        self._daemon.wait()

    def entries(self) -> int:
        """Return how many writes and flushes the log holds by now."""
        with self.log.open("rb") as log:
            log.seek(16)
            return int.from_bytes(log.read(8), "little")

    def __enter__(self) -> Self:
        make_image(self.image, self.kind, self._size_mib)
        if self._logged:
            run("cp", "--sparse=always", str(self.image), str(self.pristine))
            with self.log.open("wb") as log:
                log.truncate(LOG_MIB << 20)
        self._export.touch()
        self.mount.mkdir(exist_ok=True)
        with ExitStack() as undo:
            undo.callback(self._let_go)
            self._daemon = subprocess.Popen(
                self._daemon_command(), stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
            )
            undo.callback(self._stop_daemon, self._daemon)
            if not until(self._pidfile.exists, READY_S):
                raise RuntimeError("the storage daemon did not start")
            loop = run("losetup", "-f", "--show", "--direct-io=off", str(self._export)).strip()
            undo.callback(self._free_loop, loop)
            run("mount", loop, str(self.mount))
            undo.callback(unmount, self.mount)
            self._undo = undo.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._undo.close()

    def _daemon_command(self) -> list[str]:
        nodes = [f"driver=file,filename={self.image},node-name=f0,cache.direct=off"]
        served = "f0"
        throttle: list[str] = []
        if self._logged:
            nodes.append(f"driver=file,filename={self.log},node-name=l0")
            # The entry count in the log's head must be right at every receipt, hence an update at each write.
            nodes.append("driver=blklogwrites,node-name=b0,file=f0,log=l0,log-super-update-interval=1")
            served = "b0"
        elif self._bytes_per_s:
            throttle = ["--object", f"throttle-group,id=tg,x-bps-total={self._bytes_per_s}"]
            nodes.append("driver=throttle,node-name=t0,throttle-group=tg,file=f0")
            served = "t0"
        devices = [part for each in nodes for part in ("--blockdev", each)]
        export = f"type=fuse,id=e0,node-name={served},mountpoint={self._export},writable=on"
        return ["qemu-storage-daemon", *throttle, *devices, "--export", export, "--pidfile", str(self._pidfile)]

    @staticmethod
    def _free_loop(loop: str) -> None:
        with suppress(RuntimeError):
            run("losetup", "-d", loop)

    @staticmethod
    def _stop_daemon(daemon: "subprocess.Popen[bytes]") -> None:
        daemon.terminate()
        try:
            daemon.wait(READY_S)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()

    def _let_go(self) -> None:
        with suppress(RuntimeError):  # it is a mount point only when the daemon was killed
            run("fusermount3", "-u", "-z", str(self._export))
