"""Move the section `terminal` of a hermes configuration (`~/.hermes/config.yaml`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from taskcell.migration.container import add_volume, move_options, pass_on, set_variables
from taskcell.migration.moved import Moved, Mover, as_seconds, move_all, texts
from taskcell.profile.docker_flags import parse
from taskcell.units import parse_size

#: Its backends whose image becomes ours, each with its key.
_IMAGES = {
    "docker": "docker_image", "singularity": "singularity_image", "modal": "modal_image", "daytona": "daytona_image",
}  # fmt: skip


def migrate(config: Mapping[str, Any]) -> Moved:
    """Return the configuration that gives commands what the terminal of hermes gave them."""
    moved = Moved()
    terminal = config.get("terminal")
    table = terminal if isinstance(terminal, dict) else {}
    movers = {**_MOVERS, **_images(str(table.get("backend", "local")))}
    moved.set("terminal", "network", "none")
    # Settled together at the end: each of the three shapes the others.
    files = {key: table[key] for key in ("container_disk", "container_persistent", "container_memory") if key in table}
    move_all({key: value for key, value in table.items() if key not in files}, "terminal.", movers, moved)
    _files(files, moved)
    if "docker_network" not in table:
        moved.changed("terminal.docker_network", 'there is no network; write network = "bridge" for one, as hermes has')
    if moved.settings["terminal"]["network"] == "none" or _names_network(moved):
        del moved.settings["terminal"]["network"]  # the default, or what docker_extra_args say
    for section in config:
        if section != "terminal":
            moved.lost(str(section), "is not about the sandbox of commands; hermes keeps it")
    return moved


def _names_network(moved: Moved) -> bool:
    given, _ = parse(moved.settings["terminal"].get("extra_args", []))
    return any(option.name == "network" for option in given)


def _images(backend: str) -> dict[str, Mover]:
    def move(key: str, value: Any, moved: Moved) -> None:
        if _IMAGES.get(backend) != key.rpartition(".")[2]:
            moved.lost(key, f"belongs to another backend than '{backend}'")
            return
        moved.set("terminal", "image", str(value).removeprefix("docker://"))
        moved.kept(key, "terminal.image")

    return dict.fromkeys(_IMAGES.values(), move)


def _terminal(moved: Moved) -> dict[str, Any]:
    return moved.settings.setdefault("terminal", {})


def _backend(key: str, value: Any, moved: Moved) -> None:
    if value == "docker":
        moved.kept(key, "every command runs in a container")
    else:
        moved.changed(key, f"commands run in a container of taskcell's, and not by the backend '{value}'")


def _cwd(key: str, value: Any, moved: Moved) -> None:
    path = "~" if value is None else str(value)  # YAML reads a bare ~ as nothing
    if path in ("~", "/workspace"):
        moved.kept(key, "a task begins in /workspace, which is its home")
    elif path.startswith("~/"):
        moved.set("terminal", "working_dir", f"/workspace/{path[2:]}")
        moved.changed(key, "terminal.working_dir: the home folder is /workspace")
    elif path.startswith("/"):
        moved.set("terminal", "working_dir", path)
        moved.kept(key, "terminal.working_dir")
    else:
        moved.changed(key, "a task begins in /workspace: a server may be started in any folder")


def _timeout(key: str, value: Any, moved: Moved) -> None:
    text = as_seconds(value)
    moved.set("terminal", "timeout", text)
    if value > 3600:
        moved.set("limits", "max_timeout", text)
    moved.kept(key, "terminal.timeout")


def _lifetime(key: str, value: Any, moved: Moved) -> None:
    moved.set("pool", "idle_ttl", as_seconds(value))
    moved.kept(key, "pool.idle_ttl, which counts from the end of the last command")


def _sudo(key: str, value: Any, moved: Moved) -> None:
    moved.set("terminal", "sudo", True)
    moved.changed(
        key, "terminal.sudo, with a password of taskcell's own; for an image whose user has one, see sudo.password_file"
    )


def _mount_cwd(key: str, value: Any, moved: Moved) -> None:
    if value is not True:
        moved.kept(key, "no folder of the host is mounted by itself")
    else:
        moved.lost(key, "a server may be started in any folder; start it with --folder, or write workspace.folder")


def _network(key: str, value: Any, moved: Moved) -> None:
    moved.set("terminal", "network", "bridge" if value is True else "none")
    moved.kept(key, "terminal.network")


def _cpu(key: str, value: Any, moved: Moved) -> None:
    moved.set("terminal", "cpus", f"{float(value):g}")
    moved.kept(key, "terminal.cpus")


def _shm(key: str, value: Any, moved: Moved) -> None:
    parse_size(value)
    moved.set("terminal", "shm_size", value)
    moved.kept(key, "terminal.shm_size")


def _files(found: Mapping[str, Any], moved: Moved) -> None:
    """Size and life of the files, and the memory that they may count as."""
    counts = {key: value for key, value in found.items() if isinstance(value, int) and not isinstance(value, bool)}
    memory, disk = counts.get("container_memory"), counts.get("container_disk")
    if memory:
        moved.set("terminal", "memory", f"{memory}m")
        moved.kept("terminal.container_memory", "terminal.memory")
    if "folder" in moved.settings.get("workspace", {}):
        for key in found.keys() - {"container_memory"}:
            moved.kept(f"terminal.{key}", "workspace.folder: the files are the folder's own")
        return
    persistent = found.get("container_persistent", True) is not False
    if "container_persistent" in found:
        if persistent:
            moved.set("workspace", "persistent", True)
        moved.kept("terminal.container_persistent", "workspace.persistent")
    if disk and persistent and "container_persistent" in found:
        moved.set("workspace", "size", f"{disk}m")
        moved.changed("terminal.container_disk", "workspace.size: the task's files; the image stays read-only")
    elif disk:
        size = min(disk, (memory or 2048) // 2)
        moved.set("workspace", "size", f"{size}m")
        moved.changed("terminal.container_disk", f"workspace.size of {size} MiB: the files are in memory")
    for key in found.keys() - counts.keys() - {"container_persistent"}:
        moved.lost(f"terminal.{key}", "does not have a value of the right kind, and was not read")


def _volumes(key: str, value: Any, moved: Moved) -> None:
    for volume in texts(value):
        source, _, rest = volume.partition(":")
        if source.startswith("/") and rest in ("/workspace", "/workspace:rw"):
            moved.set("workspace", "folder", source)
            moved.kept(f"{key} {volume}", "workspace.folder: every task works in it, and commands run as its owner")
            continue
        add_volume(f"{key} {volume}", volume, _terminal(moved), moved)


def _always(what: str) -> Mover:
    return lambda key, value, moved: moved.kept(key, what)


_MOVERS: dict[str, Mover] = {
    "backend": _backend,
    "cwd": _cwd,
    "timeout": _timeout,
    "lifetime_seconds": _lifetime,
    "sudo_password": _sudo,
    "docker_mount_cwd_to_workspace": _mount_cwd,
    "docker_network": _network,
    "docker_shm_size": _shm,
    "container_cpu": _cpu,
    "docker_env": lambda key, value, moved: set_variables(key, dict(value), _terminal(moved), moved),
    "docker_forward_env": lambda key, value, moved: pass_on(key, texts(value), _terminal(moved), moved),
    "env_passthrough": lambda key, value, moved: pass_on(key, texts(value), _terminal(moved), moved),
    "docker_volumes": _volumes,
    "docker_extra_args": lambda key, value, moved: move_options(key, texts(value), _terminal(moved), moved),
    "docker_persist_across_processes": _always("pool.on_exit: a task waits for its next server"),
    "docker_orphan_reaper": _always("pool.orphan_ttl: a sandbox whose server is gone removes itself"),
    "docker_run_as_host_user": _always("commands never run as root"),
    "persistent_shell": _always("folder and variables last from command to command"),
}
