"""Gives folders of the image to the user that commands run as: the supervisor's own program does, as root."""

from __future__ import annotations

from docker import APIClient

from taskcell.engine.base import OWN_TIMEOUT
from taskcell.engine.docker.hardening import SUPERVISOR
from taskcell.errors import EngineError
from taskcell.model import Profile
from taskcell.text import shown
from taskcell.units import format_seconds

#: Exit code of a program that SIGALRM ends, as engines report it.
_ALARM = 128 + 14
#: Characters of what the program says.
_MAX_SAID = 500


def give(client: APIClient, container_id: str, profile: Profile) -> None:
    """Give the profile's folders to its user, in a container that runs no command yet. Raises EngineError, APIError."""
    if not profile.own:
        return
    words = [SUPERVISOR, "own", str(round(OWN_TIMEOUT)), profile.user, *profile.own]
    made = client.exec_create(container_id, words, stdin=False, tty=False, user="0:0")
    said = client.exec_start(made["Id"]).decode("utf-8", "replace").strip()[:_MAX_SAID]
    code = client.exec_inspect(made["Id"]).get("ExitCode")
    if code == 0:
        return
    folders = ", ".join(map(shown, profile.own))
    if code == _ALARM or not said:
        after = f"within {format_seconds(OWN_TIMEOUT)} s" if code == _ALARM else f"(code {code})"
        raise EngineError(
            f"The sandbox's user could not be given {folders} {after}; name a smaller folder in own, or build an image "
            "in which the folder belongs to the user."
        )
    raise EngineError(
        f"The sandbox's user could not be given {folders}: {shown(said, _MAX_SAID)}. Correct 'own': each must be a "
        "folder of the image, and no link."
    )
