"""`taskcell.toml`: defaults, where it is found, overrides, and every fault told."""

import tomllib
from pathlib import Path

import pytest
from pydantic import BaseModel

import taskcell
from taskcell.config import load as config
from taskcell.config.settings import Settings
from taskcell.config.shipped import shipped_manifests
from taskcell.engine import kinds
from taskcell.errors import ConfigError
from taskcell.model import GIB, MIB

DOCS = Path(__file__).resolve().parents[2] / "docs"


def load(path, environ, cwd):
    return config.load(path, environ, cwd, engines=kinds.isolation())


def faults(tmp_path, text, environ=None):
    path = tmp_path / "taskcell.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(path, environ or {}, tmp_path)
    return [line.replace(f"{tmp_path}/", "") for line in str(caught.value).splitlines()]


def loaded(tmp_path, text, environ=None):
    path = tmp_path / "taskcell.toml"
    path.write_text(text)
    return load(path, environ or {}, tmp_path)


def test_no_file_means_the_documented_defaults(tmp_path):
    settings = load(None, {}, tmp_path)
    assert settings.file is None
    assert settings.terminal.image == "taskcell/base:latest"
    assert settings.terminal.shell == ("bash", "-c")
    assert (settings.terminal.memory, settings.terminal.cpus, settings.terminal.pids) == (2 * GIB, 1.0, 256)
    assert (settings.workspace.persistent, settings.workspace.size) == (False, GIB)
    assert (settings.pool.max_sandboxes, settings.pool.max_per_principal, settings.pool.warm) == (32, 16, 1)
    assert (settings.pool.idle_ttl, settings.pool.orphan_ttl, settings.pool.acquire_timeout) == (900, 120, 30)
    assert (settings.limits.timeout, settings.limits.max_timeout, settings.limits.wait) == (180, 3600, 50)
    assert (settings.limits.output_chars, settings.limits.spool, settings.limits.max_processes) == (50000, 16 * MIB, 64)
    assert settings.policy.allow_networks == ("none",)
    assert settings.policy.allowed_capabilities == settings.policy.allowed_mount_roots == settings.policy.rules == ()
    assert (settings.policy.max_memory, settings.policy.max_cpus, settings.policy.max_pids) == (4 * GIB, 4.0, 1024)
    assert not settings.policy.allow_sudo
    assert (settings.http.host, settings.http.port, settings.http.max_body) == ("127.0.0.1", 8765, 16 * MIB)


def test_the_file_named_on_the_command_line_wins_over_the_environment_and_the_folder(tmp_path):
    for name, warm in (("taskcell.toml", 2), ("env.toml", 3), ("named.toml", 4)):
        (tmp_path / name).write_text(f"[pool]\nwarm = {warm}\n")
    environ = {"TASKCELL_CONFIG": str(tmp_path / "env.toml")}
    assert load(Path("named.toml"), environ, tmp_path).pool.warm == 4
    assert load(None, environ, tmp_path).pool.warm == 3
    assert load(None, {}, tmp_path).pool.warm == 2


@pytest.mark.parametrize(
    "environ", [{"XDG_CONFIG_HOME": "{home}/.config"}, {"HOME": "{home}"}, {"XDG_CONFIG_HOME": "rel", "HOME": "{home}"}]
)
def test_the_users_own_file_is_found_last(tmp_path, environ):
    file = tmp_path / "home" / ".config" / "taskcell" / "taskcell.toml"
    file.parent.mkdir(parents=True)
    file.write_text("[pool]\nwarm = 5\n")
    places = {name: value.format(home=tmp_path / "home") for name, value in environ.items()}
    assert load(None, places, tmp_path).file == file


@pytest.mark.parametrize(
    ("path", "environ", "says"),
    [(Path("no.toml"), {}, "--config"), (None, {"TASKCELL_CONFIG": "no.toml"}, r"\$TASKCELL_CONFIG")],
)
def test_a_named_file_that_does_not_exist_is_an_error(tmp_path, path, environ, says):
    with pytest.raises(ConfigError, match=rf"no\.toml: there is no such file; {says}"):
        load(path, environ, tmp_path)


def test_an_unknown_key_names_the_nearest_valid_one_and_its_line(tmp_path):
    assert faults(tmp_path, "[policy]\n\nallow_sudoo = true\n") == [
        "taskcell.toml:3: policy.allow_sudoo: unknown key; did you mean 'allow_sudo'?"
    ]


def test_every_fault_is_told_at_once(tmp_path):
    text = (
        'polic = 1\n[pool]\nwarm = "1"\nidle_ttl = "soon"\n[http]\nport = true\n'
        '[[policy.rules]]\nname = "a"\neffect = "deny"\n[[policy.rules]]\nname = "b"\neffect = "no"\ncommand = "("\n'
        "[workspace]\npersistent = 1\n"
    )
    assert sorted(faults(tmp_path, text)) == sorted(
        [
            "taskcell.toml:3: pool.warm: must be a whole number",
            "taskcell.toml:4: pool.idle_ttl: must be a duration such as '500ms', '180s', '15m' or '1h', "
            "or a number of seconds",
            "taskcell.toml:6: http.port: must be a whole number",
            "taskcell.toml:12: policy.rules[1].effect: must be 'allow', 'deny' or 'ask'",
            "taskcell.toml:13: policy.rules[1].command: is not a regular expression: "
            "missing ), unterminated subpattern at position 0",
            "taskcell.toml:15: workspace.persistent: must be true or false",
            "taskcell.toml:1: polic: unknown key; did you mean 'policy'?",
        ]
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[engine]\nkind = "nomad"', "engine.kind: must be 'docker' or 'kubernetes'; this version has no other engine"),
        ('[engine]\nkind = "podman"', "must be 'docker'"),
        ('[pool]\non_exit = "stay"', "must be 'close' or 'keep'"),
        ('[workspace]\nroot = "~/work"', "relative to the configuration's folder, without '~'"),
        ('[terminal]\nreuse = "call"', "the terminal's working directory and environment live in its sandbox"),
        ('[policy]\nallowed_mount_roots = ["srv"]', "must be absolute paths of the host"),
        ('[policy]\nblocked_mount_paths = ["~/.ssh"]', "must be absolute paths of the host"),
        ("[pool]\nwarm = -1", "must be at least 0"),
        ("[pool]\nwarm = 40\nmax_sandboxes = 8", "is more than pool.max_sandboxes, which is 8"),
        ("[pool]\nmax_sandboxes = 0", "must be at least 1"),
        ("[terminal]\nshell = []", "must be a program and its options"),
        ("[terminal]\nshell = 'bash'", "must be a list"),
        ('[terminal]\nentrypoint = "/bin/x"', "has no meaning for the terminal"),
        ('[terminal]\nmemory = "1m"', "the container engine's minimum"),
        ("[terminal]\nmemory = nan", "must be a size"),
        ('[terminal]\nenvironment = ["HOME"]', "would forward the server's own variable"),
        ('[terminal]\nvolumes = ["data/x:/x"]', "is not understood; write '${SKILL_WORKDIR}:/target'"),
        ('[terminal]\nworking_dir = "work"', "must be an absolute path"),
        ('[limits]\ntimeout = "2h"', "is longer than limits.max_timeout, which is 3600 seconds"),
        ('[terminal]\ntimeout = "2h"', "is longer than limits.max_timeout, which is 3600 seconds"),
        ("[limits]\ntimeout = 0", "at least 1 ms"),
        ('deployment = "a b"', "letters, digits"),
        ('manifests = ["~/m"]', "without '~'"),
        ('[http]\nissuer = "https://x"', "audience and jwks_url is missing"),
        ("[engine]\nhost = 1979-05-27", "must be a string"),
        ("engine = 3", "must be a table"),
    ],
)
def test_a_value_that_makes_no_sense_is_an_error(tmp_path, text, says):
    (line,) = faults(tmp_path, text)
    assert says in line


def test_the_file_systems_in_memory_must_stay_below_the_memory_and_both_numbers_are_named(tmp_path):
    (line,) = faults(tmp_path, '[terminal]\nmemory = "1g"\n')
    assert line.startswith("taskcell.toml:2: terminal.memory: 1 GiB is not more than the 1.328 GiB")
    assert "workspace.size 1 GiB" in line


def test_a_syntax_error_names_its_line(tmp_path):
    (line,) = faults(tmp_path, "[pool]\nwarm 1\n")
    assert line.startswith("taskcell.toml:2: is not valid TOML")


def test_the_environment_overrides_keys_of_every_type(tmp_path):
    environ = {
        "TASKCELL__POOL__WARM": "0",
        "TASKCELL__TERMINAL__MEMORY": "3g",
        "TASKCELL__TERMINAL__READ_ONLY": "false",
        "TASKCELL__LIMITS__TIMEOUT": "90",
        "TASKCELL__LIMITS__WAIT": "10s",
        "TASKCELL__POLICY__ALLOW_NETWORKS": '["none", "bridge"]',
        "TASKCELL__TERMINAL__CPUS": "1.5",
        "TASKCELL__DEPLOYMENT": "7",
        "TASKCELL__SUDO__PASSWORD": "hunter2",
    }
    settings = loaded(tmp_path, "[pool]\nwarm = 9\n", environ)
    assert (settings.pool.warm, settings.terminal.memory, settings.terminal.read_only) == (0, 3 * GIB, False)
    assert (settings.limits.timeout, settings.limits.wait, settings.terminal.cpus) == (90, 10, 1.5)
    assert (settings.policy.allow_networks, settings.deployment) == (("none", "bridge"), "7")
    assert settings.sudo.password.get_secret_value() == "hunter2"


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("TASKCELL__POOL__WRAM", "1", "there is no such key to override; did you mean TASKCELL__POOL__WARM?"),
        ("TASKCELL__POOL", "{}", "there is no such key to override"),
        ("TASKCELL__POOL__WARM", "many", "must be a whole number"),
        ("TASKCELL__POOL__WARM__X", "1", "there is no such key"),
        ("TASKCELL__POLICY__ALLOW_NETWORKS", "bridge", "must be a JSON list"),
        ("TASKCELL__POLICY__ALLOW_SUDO", "yes", "must be true or false"),
        ("TASKCELL__", "1", "there is no such key"),
    ],
)
def test_a_wrong_override_is_an_error_that_names_the_variable(tmp_path, name, value, says):
    (line,) = faults(tmp_path, "", {name: value})
    assert line.startswith(f"${name}: ")
    assert says in line


def test_a_password_never_shows_in_a_repr_or_in_an_error(tmp_path):
    environ = {"TASKCELL__SUDO__PASSWORD": "hunter2", "TASKCELL__POOL__WARM": "-1"}
    settings = loaded(tmp_path, "", {"TASKCELL__SUDO__PASSWORD": "hunter2"})
    assert "hunter2" not in repr(settings) + str(settings)
    assert "hunter2" not in "".join(faults(tmp_path, '[sudo]\npassword_file = "x"\n', environ))
    assert "hunter2" not in "".join(faults(tmp_path, '[sudo]\npassword = "hunter2"\n'))


def password_file(folder, content, mode=0o600):
    path = folder / "password"
    path.write_bytes(content)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("content", [b"hunter2", b"hunter2\n", b"hunter2\r\n"])
def test_a_password_comes_from_its_file_without_the_newline_that_editors_add(tmp_path, content):
    path = password_file(tmp_path, content)
    settings = loaded(tmp_path, '[sudo]\npassword_file = "password"\n')
    assert settings.sudo_password == "hunter2"
    assert path in settings.own_files
    assert "hunter2" not in repr(settings)


def test_a_password_is_generated_unless_one_is_given(tmp_path):
    assert loaded(tmp_path, "").sudo_password is None
    assert loaded(tmp_path, '[sudo]\npassword = "generated"\n').sudo_password is None
    assert loaded(tmp_path, "", {"TASKCELL__SUDO__PASSWORD": "hunter2"}).sudo_password == "hunter2"


@pytest.mark.parametrize(
    ("content", "mode", "says"),
    [
        (b"hunter2", 0o604, "everyone on this machine may use; run `chmod 600`"),
        (b"", 0o600, "is empty"),
        (b"\n", 0o600, "is empty"),
        (b"hunter2\nhunter2\n", 0o600, "must be one line"),
        (b"hunter2\0", 0o600, "must be one line"),
        (b"hunter2\xff", 0o600, "does not hold UTF-8 text"),
        (b"hunter2" * 40, 0o600, "at most 255"),
    ],
)
def test_a_file_that_holds_no_password_or_everybody_may_read_is_refused_and_not_shown(tmp_path, content, mode, says):
    password_file(tmp_path, content, mode)
    (line,) = faults(tmp_path, '[sudo]\npassword_file = "password"\n')
    assert line.startswith("taskcell.toml:2: sudo.password_file: names ")
    assert says in line
    assert "hunter2" not in line


@pytest.mark.parametrize(
    ("name", "says"), [("missing", "cannot be read"), (".", "is not a regular file"), ("~/x", "without '~'")]
)
def test_a_password_file_that_is_none_is_an_error(tmp_path, name, says):
    (line,) = faults(tmp_path, f'[sudo]\npassword_file = "{name}"\n')
    assert says in line


@pytest.mark.parametrize("value", ["", "hunter2\nhunter2", "hunter2" * 40])
def test_a_password_of_the_environment_that_sudo_could_not_read_is_refused_and_not_shown(tmp_path, value):
    (line,) = faults(tmp_path, "", {"TASKCELL__SUDO__PASSWORD": value})
    assert line.startswith("$TASKCELL__SUDO__PASSWORD: ")
    assert "hunter2" not in line


def test_a_password_does_not_belong_into_the_file(tmp_path):
    (line,) = faults(tmp_path, '[sudo]\npassword = "hunter2"\n')
    assert line.startswith("taskcell.toml:2: sudo.password: must be 'generated'")


def test_the_terminals_texts_expand_from_the_given_environment_alone(tmp_path):
    text = '[terminal]\nimage = "${IMG:-alpine}"\nenvironment = ["TOKEN=${TOKEN}", "DIR=${SKILL_WORKDIR}/x"]\n'
    container = loaded(tmp_path, text, {"TOKEN": "s3cret"}).terminal_container
    assert container.image == "alpine"
    assert container.environment == (("TOKEN", "s3cret"), ("DIR", "/workspace/x"))
    assert "s3cret" not in repr(container)
    (line,) = faults(tmp_path, text)
    assert line.startswith("taskcell.toml:3: terminal.environment[0]: the variable TOKEN is not set")


def test_a_deployment_is_named_or_comes_from_the_files_path(tmp_path):
    assert loaded(tmp_path, 'deployment = "mine"').deployment_id == "mine"
    one = loaded(tmp_path, "").deployment_id
    (tmp_path / "link.toml").symlink_to(tmp_path / "taskcell.toml")
    (tmp_path / "other.toml").write_text("")
    assert load(Path("link.toml"), {}, tmp_path).deployment_id == one
    assert load(Path("other.toml"), {}, tmp_path).deployment_id != one
    assert load(None, {}, tmp_path / "elsewhere").deployment_id == Settings().deployment_id


def test_manifests_are_relative_to_the_files_folder(tmp_path):
    folder = tmp_path / "etc"
    folder.mkdir()
    settings = loaded(folder, 'manifests = ["a.toml", "/abs/b"]')
    assert settings.manifest_paths == (folder / "a.toml", Path("/abs/b"))


def test_the_shipped_manifests_are_used_only_where_nothing_else_is_meant(tmp_path):
    shipped = shipped_manifests()
    assert shipped is not None
    assert load(None, {}, tmp_path).manifest_paths == (shipped,)
    assert loaded(tmp_path, 'manifests = ["manifests"]').manifest_paths == (tmp_path / "manifests",)
    assert loaded(tmp_path, "").manifest_paths == (shipped,)
    (tmp_path / "manifests").mkdir()
    assert loaded(tmp_path, "").manifest_paths == (tmp_path / "manifests",)


def test_without_a_configuration_file_the_manifests_of_the_current_folder_are_not_taken(tmp_path):
    (tmp_path / "manifests").mkdir()
    assert load(None, {}, tmp_path).manifest_paths == (shipped_manifests(),)
    meant = {"TASKCELL__MANIFESTS": '["manifests"]'}
    assert load(None, meant, tmp_path).manifest_paths == (tmp_path / "manifests",)


def test_a_file_that_was_only_found_in_the_current_folder_cannot_turn_isolation_off(tmp_path):
    file = tmp_path / "taskcell.toml"
    file.write_text('[engine]\nkind = "local"\n')
    with pytest.raises(ConfigError, match=r"taskcell\.toml:2: engine\.kind: .*--config or \$TASKCELL_CONFIG") as caught:
        load(None, {}, tmp_path)
    assert "TASKCELL__ENGINE__KIND=local" in str(caught.value)
    assert load(Path("taskcell.toml"), {}, tmp_path).engine.kind == "local"
    assert load(None, {"TASKCELL_CONFIG": "taskcell.toml"}, tmp_path).engine.kind == "local"
    assert load(None, {"TASKCELL__ENGINE__KIND": "local"}, tmp_path).engine.kind == "local"
    assert load(None, {"TASKCELL__ENGINE__KIND": "docker"}, tmp_path).engine.kind == "docker"


def test_the_servers_own_files_are_its_configuration_its_manifests_and_its_package(tmp_path):
    settings = loaded(tmp_path, 'manifests = ["a.toml"]')
    package = Path(taskcell.__file__).resolve().parent
    assert settings.own_files == (tmp_path / "taskcell.toml", tmp_path / "a.toml", package)
    assert load(None, {}, tmp_path / "elsewhere").own_files == (shipped_manifests(), package)


def keys(model=Settings, prefix=""):
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from keys(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def test_the_documentation_names_every_key():
    text = (DOCS / "configuration.md").read_text()
    assert [key for key in keys() if f"`{key.rpartition('.')[2]}`" not in text] == []
    for section in Settings.model_fields:
        assert f"[{section}]" in text or f"`{section}`" in text


def test_the_documentations_example_is_a_valid_configuration(tmp_path):
    block = (DOCS / "configuration.md").read_text().split("```toml\n")[1].split("```")[0]
    assert tomllib.loads(block)
    assert loaded(tmp_path, block).policy.rules[0].name == "no-recursive-root-delete"


def test_the_persons_folder_is_found_from_the_configurations_and_stands_alone(tmp_path):
    settings = loaded(tmp_path, '[workspace]\nfolder = "site"')
    assert settings.workspace_folder == tmp_path / "site"
    assert settings.keeps_files
    assert settings.deployment_id != loaded(tmp_path, "").deployment_id
    assert loaded(tmp_path, '[terminal]\nmemory = "600m"\n[workspace]\nfolder = "site"').terminal.memory == 600 * MIB
    for other in ("persistent = true", 'root = "/srv"'):
        with pytest.raises(ConfigError, match=r"has no effect beside workspace\.folder; leave one of the two out"):
            loaded(tmp_path, f'[workspace]\nfolder = "site"\n{other}')


def test_a_storage_class_is_a_clusters(tmp_path):
    assert loaded(tmp_path, '[engine]\nkind = "kubernetes"\nstorage_class = "fast"').engine.storage_class == "fast"
    with pytest.raises(ConfigError, match=r"engine\.kind = 'kubernetes' alone"):
        loaded(tmp_path, '[engine]\nstorage_class = "fast"')


def test_a_link_to_the_persons_folder_is_followed_once(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert loaded(tmp_path, '[workspace]\nfolder = "link"').workspace_folder == tmp_path / "real"
