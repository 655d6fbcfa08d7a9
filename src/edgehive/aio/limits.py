"""Limits of the operating system on a process."""

import resource


def allow_open_files() -> int:
    """Raise the limit of open files as far as it goes without privileges; returns what it is now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):
            return soft
    return hard
