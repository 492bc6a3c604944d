"""Sets up sudo in a sandbox: gives PID 1 the password that sudo will ask for."""

from __future__ import annotations

import secrets

import structlog

from taskcell.model import Profile
from taskcell.policy.capabilities import as_mask, root_capabilities
from taskcell.supervisor import events, protocol, requests
from taskcell.supervisor.channel import Channel

log = structlog.get_logger(__name__)

#: Seconds for the supervisor to move one program and to hash one password, on a machine that is busy.
SET_UP_TIMEOUT = 15.0
#: Random bytes of a generated password.
_GENERATED_BYTES = 24


async def set_up(channel: Channel, profile: Profile, password: str | None) -> str:
    """Let the profile's user become root by sudo, before the sandbox's first command.

    Returns why sudo cannot work, or nothing. Raises SandboxLost, also when the supervisor does not answer.

    Arguments:
        password: the password that the image's user has already; None sets a random one that nobody else knows.
    """
    flags = protocol.SudoFlag.SET_PASSWORD if password is None else protocol.SudoFlag.NONE
    secret = secrets.token_urlsafe(_GENERATED_BYTES) if password is None else password
    mask = as_mask(root_capabilities(profile))
    request = requests.sudo(profile.user.encode(), secret.encode("utf-8", "surrogateescape"), mask, flags)
    (answer,) = await channel.ask(request, events.Sudo, SET_UP_TIMEOUT)
    if answer.problem:
        log.warning("sudo cannot work in a sandbox", profile=profile.name, image=profile.image, reason=answer.problem)
    return answer.problem
