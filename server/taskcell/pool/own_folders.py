"""Folders of the image that are a task's own (`own`): they lie in its container, not in its workspace.

A snapshot and a fork have them whole: each is read as an archive of the engine's, and unpacked into the other sandbox's
folder, which is emptied first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import BinaryIO, cast

import anyio
import anyio.to_thread

from taskcell.deployment.archives import has_files, pieces
from taskcell.engine.base import Engine
from taskcell.engine.folders import CopiesFolders
from taskcell.errors import BadArgument, EngineError
from taskcell.policy.policy import AuthorizedProfile
from taskcell.sandbox.as_asked import is_on_this_kernel
from taskcell.sandbox.sandbox import Sandbox
from taskcell.sandbox.setup import empty_folder
from taskcell.text import shown


def check(profile: AuthorizedProfile, wanted: Iterable[str] = ()) -> None:
    """Raise BadArgument: the profile's folders cannot be copied, or it lacks one that a snapshot has.

    Arguments:
        wanted: the snapshot's folders.
    """
    for target in (*(mount.target for mount in profile.mounts), *(tmpfs.target for tmpfs in profile.tmpfs)):
        if any(_is_within(target, folder) for folder in profile.own):
            raise BadArgument(
                f"The task's own folders cannot be copied, because the environment mounts {shown(target)} in one. Copy "
                "what is needed to /workspace, and use an environment without that."
            )
    if lacking := [folder for folder in wanted if folder not in profile.own]:
        raise BadArgument(
            f"The snapshot has {', '.join(map(shown, lacking))} too: open the task first with an environment whose "
            "'own' names that."
        )


async def save(engine: Engine, sandbox: Sandbox, file: BinaryIO, most: int) -> dict[str, int]:
    """Write an archive of each folder; returns their sizes. Raises EngineError, also when all have more than `most`."""
    if sandbox.profile.own and not is_on_this_kernel(sandbox.profile, sandbox.container):
        raise EngineError(
            f"The runtime of the sandbox keeps {', '.join(map(shown, sandbox.profile.own))} where the engine cannot "
            "read it. Copy what is needed to /workspace, and use an environment without 'own'."
        )
    sizes: dict[str, int] = {}
    for folder in sandbox.profile.own:
        begin = file.tell()
        left = most - sum(sizes.values())
        await cast(CopiesFolders, engine).save_folder(sandbox.container, folder, file, left)
        sizes[folder] = file.tell() - begin
    return sizes


async def put_all(engine: Engine, sandbox: Sandbox, file: BinaryIO, sizes: Mapping[str, int]) -> bool:
    """As `put`, and then the workspace's files; returns whether there are any. Raises what `put` raises."""
    await put(engine, sandbox, file, sizes)
    holds_any = await anyio.to_thread.run_sync(has_files, file)
    await empty_folder(sandbox, sandbox.container.workspace)  # or what the task has deleted would come back
    if holds_any:
        await engine.put_files(sandbox.container, file)
    return holds_any


async def put(engine: Engine, sandbox: Sandbox, file: BinaryIO, sizes: Mapping[str, int]) -> None:
    """Put archives, from where the file stands to their end, in the place of what the sandbox's folders hold.

    Raises EngineError, SandboxLost.

    Arguments:
        sizes: as of `save`.
    """
    for folder, size in sizes.items():
        end = file.tell() + size
        if folder in sandbox.profile.own:  # the configuration may have changed since
            await empty_folder(sandbox, folder)
            await cast(CopiesFolders, engine).put_folder(sandbox.container, folder, pieces(file, size))
        file.seek(end)


def _is_within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder}/")
