"""What lies at a path of this machine.

From Python 3.14 on `Path.exists` and its like say no of what they may not look at. Here that is an
error on every Python: nobody is told that a file is missing which is there.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

_NOTHING = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


def exists(path: Path) -> bool:
    """Whether there is anything.

    Raises:
        OSError: one may not look, or the name is too long.
    """
    return _mode(path) is not None


def is_file(path: Path) -> bool:
    """Whether there is a regular file.

    Raises:
        OSError: as `exists`.
    """
    mode = _mode(path)
    return mode is not None and stat.S_ISREG(mode)


def is_dir(path: Path) -> bool:
    """Whether there is a directory.

    Raises:
        OSError: as `exists`.
    """
    mode = _mode(path)
    return mode is not None and stat.S_ISDIR(mode)


def is_symlink(path: Path) -> bool:
    """Whether there is a symbolic link, wherever it leads.

    Raises:
        OSError: as `exists`.
    """
    mode = _mode(path, follow=False)
    return mode is not None and stat.S_ISLNK(mode)


def real(path: Path) -> Path:
    """The path with no link in it; what leads back to itself stays as it is. (`Path.resolve` fails
    there before Python 3.13.)"""
    return Path(os.path.realpath(path))


def _mode(path: Path, *, follow: bool = True) -> int | None:
    try:
        return path.stat(follow_symlinks=follow).st_mode
    except ValueError:  # a NUL in the name
        return None
    except OSError as error:
        if error.errno in _NOTHING:
            return None
        raise
