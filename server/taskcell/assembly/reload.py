"""Follows manifests that change while the server runs: good ones become the tools, faulty ones lines in the log."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import anyio
import anyio.to_thread
import structlog

from taskcell.assembly import stack
from taskcell.assembly.gateway import configured_gateway
from taskcell.assembly.invocation import Invocation
from taskcell.assembly.offer import Offer, offer_of
from taskcell.assembly.stack import Loaded
from taskcell.errors import ManifestError, TaskcellError
from taskcell.gateway.gateway import Gateway
from taskcell.skills import manifest_files
from taskcell.tools.tool import Tool

log = structlog.get_logger(__name__)

#: Seconds between two looks at the files, which cost a `stat` each. Looking finds what events of the file system miss:
#: changes on network file systems, and files that a mount or a link replaces.
POLL_INTERVAL = 0.5


@asynccontextmanager
async def following_gateway(run: Invocation, loaded: Loaded, *, has_peers: bool = False) -> AsyncIterator[Gateway]:
    """A gateway whose tools follow the manifests, and whose offer follows what can run.

    `has_peers` as in `configured_gateway`. Raises what `configured_gateway` raises.
    """
    async with configured_gateway(run, loaded, has_peers=has_peers) as gateway, anyio.create_task_group() as following:
        offer = offer_of(gateway, loaded.settings, stack.state_folder(run, loaded.settings))
        await offer.begin()
        _log_left_out(loaded)
        following.start_soon(offer.keep)
        following.start_soon(_follow, run, loaded, gateway, offer)
        yield gateway
        following.cancel_scope.cancel()


async def _follow(run: Invocation, loaded: Loaded, gateway: Gateway, offer: Offer) -> None:
    """Read the manifests again when they have changed and then stood still from one look to the next."""
    # Not the default limiter: calls of the engine share that one and may take long.
    limiter = anyio.CapacityLimiter(1)
    used = before = loaded.stamp
    while True:
        await anyio.sleep(POLL_INTERVAL)
        now = await anyio.to_thread.run_sync(
            manifest_files.stamp, loaded.settings.manifest_paths, abandon_on_cancel=True, limiter=limiter
        )
        is_still, before = now == before, now
        if is_still and now != used:
            used = now
            new = await anyio.to_thread.run_sync(_read, run, loaded, abandon_on_cancel=True, limiter=limiter)
            if new is not None:
                _log_difference(gateway.tools, new.tools)
                _log_left_out(new)
                await offer.replace(new.tools)


def _log_left_out(loaded: Loaded) -> None:
    for skill in loaded.left_out:
        log.warning("A skill is left out; the others are served.", skill=skill.name, reason="; ".join(skill.reasons))
    if loaded.notes:
        log.info("Keys of manifests have no effect.", keys=loaded.notes)


def _read(run: Invocation, loaded: Loaded) -> Loaded | None:
    """What the manifests declare now; None when the manifests cannot be used: then each fault is logged."""
    faults: list[str] = []
    try:
        return stack.load_manifests(run, loaded.settings)
    except ManifestError as error:
        faults = error.faults
    except TaskcellError as error:
        faults = [str(error)]
    except Exception:
        log.exception("The changed manifests could not be read; the tools stay as they were.")
    for fault in faults:
        log.error("A changed manifest is faulty; the tools stay as they were.", fault=fault)
    return None


def _log_difference(old: Mapping[str, Tool], new: Mapping[str, Tool]) -> None:
    both = old.keys() & new.keys()
    log.info(
        "The manifests have changed, and are in use.",
        added=sorted(new.keys() - both),
        removed=sorted(old.keys() - both),
        changed=sorted(name for name in both if old[name] != new[name]),
    )
