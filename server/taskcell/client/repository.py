"""Git repositories of tasks: what they held when they were uploaded, and what has changed since, as a patch."""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING

from taskcell.client.failures import ArgumentError
from taskcell.client.process import Done

if TYPE_CHECKING:
    from taskcell.client.task import RemotePath, Task

#: Where git keeps what a repository held when it was uploaded: its working tree, as a tree.
_UPLOADED = "refs/taskcell/uploaded"


def check_source(source: str | os.PathLike[str]) -> None:
    """Raise ArgumentError: a folder of this machine is a working tree whose history lies elsewhere."""
    if os.path.isfile(os.path.join(source, ".git")):
        raise ArgumentError(
            f"The history of {os.fspath(source)} lies elsewhere, because it is a linked worktree or a submodule: clone "
            "it, and upload the clone."
        )


async def note(task: Task, path: RemotePath) -> None:
    """Note what a repository's working tree holds now. Raises CommandFailed."""
    await _git(task, path, "update-ref", _UPLOADED, await _working_tree(task, path))


async def patch(task: Task, path: RemotePath) -> bytes:
    """Return what has changed in a working tree since `note`. Raises CommandFailed."""
    now = await _working_tree(task, path)
    # Unlike `git diff` it heeds no setting of the repository's about how differences are shown.
    words = ("diff-tree", "-r", "-p", "-M", "--binary", "--no-ext-diff", "--no-textconv", _UPLOADED, now)
    return (await _git(task, path, *words)).stdout


async def _working_tree(task: Task, path: RemotePath) -> str:
    """Write what a working tree holds as a tree, but for what is ignored and not in the index; return its name."""
    index = f"/tmp/.taskcell-index-{secrets.token_hex(8)}"  # noqa: S108 - in the sandbox, which has one user
    try:
        head = await _git(task, path, "rev-parse", "-q", "--verify", "HEAD^{tree}", may_fail=True)
        await _git(task, path, "read-tree", "HEAD" if head.ok else "--empty", index=index)
        await _git(task, path, "add", "--all", ":/", index=index)
        forced = await _git(task, path, "ls-files", "-z", "--full-name", "-ci", "--exclude-standard", ":/")
        if forced.stdout:
            top = (await _git(task, path, "rev-parse", "--show-toplevel")).stdout.removesuffix(b"\n")
            words = ("update-index", "--add", "--remove", "-z", "--stdin")
            await _git(task, os.fsdecode(top), *words, index=index, stdin=forced.stdout)
        return (await _git(task, path, "write-tree", index=index)).stdout.decode().strip()
    finally:
        await task.run(["rm", "-f", index])


async def _git(
    task: Task, path: RemotePath, *words: str, index: str | None = None, stdin: bytes = b"", may_fail: bool = False
) -> Done:
    env = {} if index is None else {"GIT_INDEX_FILE": index}
    command = ["git", "-c", "core.hooksPath=/dev/null", "-c", "safe.directory=*", *words]
    done = await task.run(command, cwd=path, env=env, stdin=stdin)
    return done if may_fail else done.check()
