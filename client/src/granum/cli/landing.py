"""Landings: how a fetched file comes to lie on the local disk, whole or not at all.

It is written under a temporary name in its directory and gets its own at the end. The rule: an existing file is never
replaced unless asked for, not even one that appeared meanwhile, and whatever interrupts the program, nothing half-written
stays. This module does not know what is fetched.
"""

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress

PREFIX, SUFFIX = ".granum-", ".part"  # short: the temporary name must fit where the final one does
# What a file system without hard links answers (FAT, some network shares).
_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})


@contextmanager
def landing(target: str, *, force: bool) -> Iterator[str]:
    """Give the temporary name to write to; on leaving, the file gets the name *target*, after an error it is removed.

    Raises FileExistsError when *target* exists, before anything is written if it does already, unless *force*;
    FileNotFoundError when its directory does not.
    """
    check_free(target, force=force)
    directory = os.path.dirname(target)
    if directory and not os.path.isdir(directory):
        raise FileNotFoundError(errno.ENOENT, "there is no such directory", directory)
    temporary = os.path.join(directory, f"{PREFIX}{secrets.token_hex(8)}{SUFFIX}")
    try:
        yield temporary
        if force:
            os.replace(temporary, target)
        else:
            _name_exclusively(temporary, target)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)


def check_free(target: str, *, force: bool) -> None:
    """Raise FileExistsError when *target* exists, unless *force*."""
    if not force and os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, "exists already; --force replaces it", target)


def _name_exclusively(temporary: str, target: str) -> None:
    try:
        os.link(temporary, target)  # a rename would replace a file that appeared meanwhile
    except FileExistsError:
        check_free(target, force=False)
        raise
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        check_free(target, force=False)
        os.rename(temporary, target)
