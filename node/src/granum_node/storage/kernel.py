"""Two calls of Linux that Python does not offer: to sync one file system, and to read it when nobody else does.

Both may be called in any thread; neither holds the interpreter while the kernel works.
"""

import ctypes
import os
import platform

_SYS_IOPRIO_SET = {"x86_64": 251, "aarch64": 30, "riscv64": 30}  # its number differs from machine to machine
_THREAD = 1  # IOPRIO_WHO_PROCESS, which means a thread
_IDLE = 3 << 13  # IOPRIO_CLASS_IDLE
_libc = ctypes.CDLL(None, use_errno=True)


def sync_file_system(fd: int) -> None:
    """Have the disk write everything of the file system on which *fd* lies; raise OSError when it could not. May take long."""
    if _libc.syncfs(fd) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def be_idle_reader() -> None:
    """Let the calling thread have the disk when nobody else wants it, where the disk's scheduler knows such a thing."""
    number = _SYS_IOPRIO_SET.get(platform.machine())
    if number is not None:
        _libc.syscall(number, _THREAD, 0, _IDLE)
