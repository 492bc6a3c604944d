"""Say which capabilities root may hold in a sandbox with sudo, and which ones an operator may add."""

from __future__ import annotations

from taskcell.model import Profile

#: What sudo itself needs, and nothing more, as trials without each of them showed: to become another user (SETUID,
#: SETGID), to write its audit message (AUDIT_WRITE; without it each use complains), to give another user a terminal and
#: sudoedit's copies (CHOWN), to remove those copies again (FOWNER), and to pass signals on to what runs as another user
#: (KILL).
SUDO_CAPABILITIES = ("AUDIT_WRITE", "CHOWN", "FOWNER", "KILL", "SETGID", "SETUID")
#: What `cap_add` may add where the policy names it: power over the container's own files and low ports. None of them
#: reaches another process's memory, the kernel's settings, devices, mounts or raw packets.
GRANTABLE = ("DAC_OVERRIDE", "FSETID", "NET_BIND_SERVICE")
#: Linux, include/uapi/linux/capability.h.
_NUMBERS = {
    "CHOWN": 0,
    "DAC_OVERRIDE": 1,
    "FOWNER": 3,
    "FSETID": 4,
    "KILL": 5,
    "SETGID": 6,
    "SETUID": 7,
    "NET_BIND_SERVICE": 10,
    "AUDIT_WRITE": 29,
}


def plain_name(name: str) -> str:
    """Return the one spelling of a capability's name: `CAP_CHOWN` and `chown` become `CHOWN`."""
    return name.upper().removeprefix("CAP_")


def root_capabilities(profile: Profile) -> tuple[str, ...]:
    """Return what processes of the profile may hold once they are root, in order; nothing without sudo."""
    if not profile.sudo:
        return ()
    return tuple(sorted({*SUDO_CAPABILITIES, *map(plain_name, profile.cap_add)}))


def start_capabilities(profile: Profile) -> tuple[str, ...]:
    """Return what the supervisor needs beside when a sandbox starts: to give folders of the image to the user."""
    return ("CHOWN",) if profile.own else ()


def as_mask(names: tuple[str, ...]) -> int:
    """Return a number with one bit for each capability, as the kernel counts them."""
    return sum(1 << _NUMBERS[name] for name in names)
