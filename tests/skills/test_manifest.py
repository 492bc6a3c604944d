"""Skill manifests."""

from pathlib import Path

import pytest

from taskcell.config.settings import Settings
from taskcell.errors import ManifestError
from taskcell.mounts import Mount
from taskcell.profile.build import skill_profile
from taskcell.skills.manifest import load, read
from taskcell.skills.manifest_files import stamp
from taskcell.tools.catalog import built_in_names

DOCS = Path(__file__).resolve().parents[2] / "docs"
HEAD = 'version = "1"\n'
SKILL = '[skills.x]\ndescription = "Does x."\n[skills.x.docker]\nimage = "alpine"\n'


def one(tmp_path, text, environ=None):
    path = tmp_path / "m.toml"
    path.write_text(text)
    (skill,) = load([path], environ or {}, built_in_names())
    return skill


def faults(tmp_path, text, environ=None):
    path = tmp_path / "m.toml"
    path.write_text(text)
    with pytest.raises(ManifestError) as caught:
        load([path], environ or {}, built_in_names())
    return [fault.replace(f"{tmp_path}/", "") for fault in caught.value.faults]


def test_a_skill_is_read_with_everything_it_says(tmp_path):
    text = (
        HEAD
        + """
[defaults]
environment = ["LANG=C.UTF-8"]
[skills.ffmpeg]
description = "Convert."
source = "docker:jrottenberg/ffmpeg:5-alpine"
runtime = "docker"
[skills.ffmpeg.docker]
image = "jrottenberg/ffmpeg:5-alpine"
entrypoint = "/usr/local/bin/ffmpeg"
command = []
volumes = ["${SKILL_WORKDIR}:/workdir", "${SKILL_WORKDIR}:/in:ro"]
working_dir = "/workdir"
environment = ["FOO=bar"]
memory = "512m"
cpus = "2"
pids = 256
network = "none"
user = ""
gpus = ""
read_only = true
platform = ""
rm = true
reuse = "task"
sudo = false
cap_add = []
extra_args = []
timeout = "60s"
"""
    )
    skill = one(tmp_path, text)
    assert (skill.name, skill.image, skill.line) == ("ffmpeg", "jrottenberg/ffmpeg:5-alpine", 5)
    assert skill.docker.entrypoint == ("/usr/local/bin/ffmpeg",)
    assert skill.environment == (("LANG", "C.UTF-8"), ("FOO", "bar"))
    assert skill.mounts == (Mount(None, "/workdir"), Mount(None, "/in", True))
    assert (skill.docker.memory, skill.docker.cpus, skill.docker.timeout) == (512 << 20, 2.0, 60.0)


def test_an_unknown_key_names_the_nearest_valid_one(tmp_path):
    assert faults(tmp_path, HEAD + SKILL + 'memroy = "1g"\n') == [
        "m.toml:6: skills.x.docker.memroy: unknown key; did you mean 'memory'?"
    ]


def test_every_fault_of_every_file_is_told_at_once(tmp_path):
    (tmp_path / "a.toml").write_text('[skills.x]\ndescription = ""\n[skills.y]\ndescription = "y"\npids = 1\n')
    (tmp_path / "b.toml").write_text(HEAD + SKILL + "pids = 0\ncpus = -1\n[skils]\n")
    (tmp_path / "c.toml").write_text("version =\n")
    with pytest.raises(ManifestError) as caught:
        load([tmp_path, tmp_path / "nowhere"], {}, ())
    told = [fault.removeprefix(f"{tmp_path}/") for fault in caught.value.faults]
    assert [fault.split(": ")[:2] for fault in told] == [
        ["a.toml:2", "skills.x.description"],
        ["a.toml:1", "skills.x.docker.image"],
        ["a.toml:5", "skills.y.pids"],
        ["a.toml:3", "skills.y.docker.image"],
        ["b.toml:8", "skils"],
        ["b.toml:7", "skills.x.docker.cpus"],
        ["b.toml:6", "skills.x.docker.pids"],
        ["c.toml:1", "is not valid TOML"],
        ["nowhere", "there is no such file or folder; correct 'manifests' in the configuration"],
    ]


def test_a_faulty_table_hides_no_fault_of_its_neighbours(tmp_path):
    text = (
        "[defaults]\nenvironment = ['A']\n[skills.x]\nsource = 'docker:'\n"
        "[skills.y]\nsource = 'docker:a'\nruntime = 'podman'\n[skills.y.docker]\nenvironment = ['B']\n"
        "[skills.y.tools.t]\nargv = ['{a}']\n[skills.y.tools.u]\ndescription = 'u'\nargv = ['{b}']\n"
    )
    assert [fault.split(": ")[1] for fault in faults(tmp_path, HEAD + text)] == [
        "defaults.environment[0]",
        "skills.x.source",
        "skills.y.runtime",
        "skills.y.docker.environment[0]",
        "skills.y.tools.t.description",
        "skills.y.tools.t.argv[0]",
        "skills.y.tools.u.argv[0]",
    ]


def test_the_source_is_the_image_where_none_is_named(tmp_path):
    skill = one(tmp_path, HEAD + '[skills.x]\ndescription = "x"\nsource = "docker:alpine:3"\n')
    assert skill.image == "alpine:3"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[skills.x]\ndescription = "x"\nsource = "docker:a"\ndocker.image = "b"\n', "skills.x.source: names another"),
        ('[skills.x]\ndescription = "x"\nsource = "podman:a"\n', "must be 'docker:IMAGE'"),
        ('[skills.x]\ndescription = "x"\n', "skills.x.docker.image: is missing"),
        ('[skills.x]\ndocker.image = "a"\ndescription = " "\n', "skills.x.description: must say in a sentence"),
        ("[skills]\nx = 3\n", "skills.x: must be a table"),
        ("[skills.x]\ndescription = 'x'\nsource = 'docker:a'\ntools = 3\n", "skills.x.tools: must be a table"),
        (SKILL + 'reuse = "calls"\n', "must be 'task' or 'call'"),
        (SKILL + 'environment = ["AWS_SECRET_ACCESS_KEY"]\n', "would forward the server's own variable"),
        (SKILL + 'environment = ["1A=x"]\n', "is not the name of an environment variable"),
        (SKILL + 'environment = ["TASKCELL_X=x"]\n', "which the sandbox keeps for itself"),
        (SKILL + 'environment = "A=b"\n', "must be a list"),
        (SKILL + 'entrypoint = "python3 -m x"\n', "must be the path of one program, or a list"),
        (SKILL + "entrypoint = 3\n", "must be a string or a list of strings"),
        (SKILL + 'network = ""\n', "must be 'none' or a network's name"),
        (SKILL + 'volumes = ["${SKILL_WORKDIR}"]\n', "is not understood; write"),
        (SKILL + 'volumes = ["${SKILL_WORKDIR}/sub:/x"]\n', "is not understood"),
        (SKILL + 'volumes = ["${SKILL_WORKDIR}:/x:z"]\n', "for SELinux, which is for the host to do"),
        (SKILL + 'volumes = ["${SKILL_WORKDIR}:x"]\n', "has no absolute path of the container after ':'"),
        (
            SKILL + 'volumes = ["./x:/x"]\n',
            "a folder below the one that docker is started in; for the",
        ),
        (SKILL + 'command = ["a\\u0000"]\n', "must not hold a NUL"),
        ('[skills."a b"]\ndescription = "x"\ndocker.image = "a"\n', "1 to 64 letters"),
    ],
)
def test_what_is_not_understood_is_a_fault(tmp_path, text, says):
    (fault,) = faults(tmp_path, HEAD + text)
    assert says in fault


@pytest.mark.parametrize("image", ["--privileged", "a b", "UPPER", "a:b:c", "$(id)", "a/../b", "", "a" * 64])
def test_an_image_that_is_no_reference_is_a_fault(tmp_path, image):
    text = HEAD + f'[skills.x]\ndescription = "x"\ndocker.image = "{image}"\n'
    if image == "a" * 64:
        text = text.replace(image, "0123456789abcdef" * 4)
    (fault,) = faults(tmp_path, text)
    assert "skills.x.docker.image" in fault


HIDDEN = {
    "\\u001b[8m": "U+001B control character",
    "\\u009b": "U+009B control character",
    "\\u202e": "U+202E RIGHT-TO-LEFT OVERRIDE",
    "\\u2066": "U+2066 LEFT-TO-RIGHT ISOLATE",
    "\\u200b": "U+200B ZERO WIDTH SPACE",
    "\\uFEFF": "U+FEFF ZERO WIDTH NO-BREAK SPACE",
    "\\U000E0041": "U+E0041 TAG LATIN CAPITAL LETTER A",
    "\\U000E0101": "U+E0101 VARIATION SELECTOR-18",
    "\\u2028": "U+2028 LINE SEPARATOR",
}
TOOL = (
    HEAD
    + SKILL
    + """
[skills.x.tools.y]
title = "A title."
description = "Does y."
argv = ["{z}", "{w}"]
[skills.x.tools.y.parameters.z]
type = "string"
description = "A word."
enum = ["one", "two"]
default = "one"
[skills.x.tools.y.parameters.w]
type = "array"
items = { type = "string", description = "Items." }
default = ["three"]
"""
)


@pytest.mark.parametrize(("written", "named"), HIDDEN.items())
@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("Does x.", "skills.x.description"),
        ("A title.", "skills.x.tools.y.title"),
        ("Does y.", "skills.x.tools.y.description"),
        ("A word.", "skills.x.tools.y.parameters.z.description"),
        ("two", "skills.x.tools.y.parameters.z.enum"),
        ("three", "skills.x.tools.y.parameters.w.default"),
        ("Items.", "skills.x.tools.y.parameters.w.items.description"),
    ],
)
def test_what_a_model_would_read_and_a_person_not_see_is_a_fault_that_names_it(tmp_path, written, named, text, key):
    assert one(tmp_path, TOOL)
    (fault,) = faults(tmp_path, TOOL.replace(text, text + written))
    assert f"{key}: " in fault
    assert named in fault or (key.endswith("title") and "control characters" in fault)
    assert fault.isprintable()


WRITTEN = [
    "\u05e9\u05dc\u05d5\u05dd",
    "\u0646\u0645\u06cc\u200c\u062e",
    "\U0001f469\u200d\U0001f4bb \u2764\ufe0f",
    "a\tb\nc",
    "e\u0301",
]


@pytest.mark.parametrize("text", WRITTEN)
def test_text_of_every_script_is_taken(tmp_path, text):
    assert one(tmp_path, TOOL.replace('"Does x."', f'"""{text}"""')).description == text


@pytest.mark.parametrize("name", sorted(built_in_names()))
def test_a_skill_may_not_take_the_name_of_a_tool(tmp_path, name):
    text = HEAD + f'[skills.{name}]\ndescription = "x"\ndocker.image = "a"\n'
    (fault,) = faults(tmp_path, text)
    assert fault.startswith(f"m.toml:2: skills.{name}: '{name}' is the name of one of taskcell's own tools")


def test_a_skill_that_stands_twice_names_both_places(tmp_path):
    for name in ("a.toml", "b.toml"):
        (tmp_path / name).write_text(HEAD + SKILL)
    with pytest.raises(ManifestError) as caught:
        load([tmp_path], {}, ())
    a, b = tmp_path / "a.toml", tmp_path / "b.toml"
    assert caught.value.faults == [f"{b}:2: skills.x: is declared at {a}:2 already; rename one of the two"]


def test_a_file_that_is_named_twice_is_read_once(tmp_path):
    (tmp_path / "a.toml").write_text(HEAD + SKILL)
    assert len(load([tmp_path, tmp_path / "a.toml"], {}, ())) == 1


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${A}", "set"),
        ("${EMPTY}", ""),
        ("${EMPTY:-d}", "d"),
        ("${UNSET:-d}", "d"),
        ("${UNSET:-}", ""),
        ("${A:-d}", "set"),
        ("${A:?why}", "set"),
        ("x${A}y${A}", "xsety" + "set"),
        ("${SKILL_WORKDIR}/x", "/workspace/x"),
        ("costs 5$", "costs 5$"),
        ("${UNSET:-$}HOME", "$HOME"),
    ],
)
def test_variables_expand_in_environment_values(tmp_path, text, value):
    skill = one(tmp_path, HEAD + SKILL + f"environment = ['K={text}']\n", {"A": "set", "EMPTY": ""})
    assert skill.environment == (("K", value),)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("${UNSET}", "UNSET is not set in the server's environment: set it, or write ${UNSET:-default}"),
        ("${UNSET:?give a key}", "UNSET is not set in the server's environment: give a key"),
        ("${EMPTY:?}", "EMPTY is not set"),
        ("$A", "is not understood"),
        ("${UNSET:-${A}}", "is not understood"),
        ("${A:-{x}}", "is not understood"),
        ("${A+x}", "is not understood"),
        ("${A", "is not understood"),
        ("${1}", "is not understood"),
        ("${}", "is not understood"),
        ("$(id)", "is not understood"),
        ("$$", "is not understood"),
    ],
)
def test_any_other_form_of_a_variable_is_a_fault(tmp_path, text, says):
    (fault,) = faults(tmp_path, HEAD + SKILL + f"environment = ['K={text}']\n", {"A": "set", "EMPTY": ""})
    assert fault.startswith("m.toml:6: skills.x.docker.environment[0]: ")
    assert says in fault


def test_variables_expand_in_images_and_volumes_and_nowhere_else(tmp_path):
    text = HEAD + SKILL.replace("alpine", "alpine:${TAG}") + "volumes = ['${DATA}:/d:ro']\ncommand = ['${TAG}', '$x']\n"
    skill = one(tmp_path, text, {"TAG": "3", "DATA": "/srv/data"})
    assert (skill.image, skill.docker.command) == ("alpine:3", ("${TAG}", "$x"))
    assert skill.mounts == (Mount("/srv/data", "/d", True),)


def test_the_workspace_at_its_own_place_is_no_second_mount(tmp_path):
    assert one(tmp_path, HEAD + SKILL + "volumes = ['${SKILL_WORKDIR}:/workspace']\n").mounts == ()


def test_an_expanded_value_never_shows_in_a_fault_or_a_repr(tmp_path):
    text = HEAD + SKILL.replace("alpine", "alpine:${SECRET}") + "environment = ['K=${SECRET}']\n"
    assert "s3cret!" not in "".join(faults(tmp_path, text, {"SECRET": "s3cret!"}))
    skill = one(tmp_path, HEAD + SKILL + "environment = ['K=${SECRET}']\n", {"SECRET": "s3cret!"})
    assert "s3cret!" not in repr(skill)


def test_the_documentations_manifests_are_valid(tmp_path):
    blocks = (DOCS / "manifests.md").read_text().split("```toml\n")[1:]
    skills = [one(tmp_path, block.split("```")[0]) for block in blocks]
    assert [skill.tool_names for skill in skills] == [("ffmpeg",), ("video_thumbnail",)]


def test_the_documentation_names_every_key():
    from taskcell.config.container_table import ContainerTable
    from taskcell.skills.manifest import ManifestTable
    from taskcell.skills.parameters import ParameterTable, ValueTable
    from taskcell.skills.skill_table import SkillTable
    from taskcell.skills.typed_tool import ToolTable

    text = (DOCS / "manifests.md").read_text()
    for model in (ManifestTable, SkillTable, ContainerTable, ToolTable, ParameterTable, ValueTable):
        assert [name for name in model.model_fields if f"`{name}`" not in text] == []


def test_the_stamp_of_manifests_changes_with_their_files(tmp_path):
    folder = tmp_path / "skills"
    seen = {stamp([folder])}
    folder.mkdir()
    seen.add(stamp([folder]))
    (folder / "a.toml").write_text("a")
    seen.add(stamp([folder]))
    (folder / "a.toml").write_text("ab")
    seen.add(stamp([folder]))
    (folder / "a.toml").rename(folder / "b.toml")
    seen.add(stamp([folder]))
    assert len(seen) == 5
    (folder / "notes.txt").write_text("x")
    assert stamp([folder]) in seen


def test_version_and_description_may_be_missing(tmp_path):
    skill = one(tmp_path, '[skills.x]\nsource = "docker:alpine:3"\ndocker.entrypoint = ["tr", "a-z", "A-Z"]\n')
    assert skill.description == "Run `tr` of the image alpine:3."
    bare = one(tmp_path, '[skills.x]\nsource = "docker:${IMAGE}"\n', {"IMAGE": "s3cret"})
    assert bare.description == "Run the program of the image ${IMAGE}."
    hidden = one(tmp_path, '[skills.x]\nsource = "docker:a"\ndocker.entrypoint = ["t\\u202er"]\n')
    assert hidden.description == "Run the program of the image a."
    (fault,) = faults(tmp_path, 'version = "2"\n' + "[skills.x]\nsource = 'docker:a'\n")
    assert "version" in fault


def test_a_variable_that_is_not_set_leaves_a_skill_out_and_is_no_fault_of_the_file(tmp_path):
    text = (
        HEAD
        + '[skills.a]\nsource = "docker:${A}"\ndescription = "a"\n[skills.a.tools.t]\ndescription = "t"\nargv = []\n'
        + '[skills.b]\nsource = "docker:b"\ndescription = "b"\ndocker.volumes = ["${B:?names a folder}:/b"]\n'
        + '[skills.c]\nsource = "docker:c"\ndescription = "c"\n'
    )
    (tmp_path / "m.toml").write_text(text)
    found = read([tmp_path], {}, ())
    assert found.faults == ()
    assert [skill.name for skill in found.skills] == ["c"]
    assert [(skill.name, skill.tool_names) for skill in found.left_out] == [("a", ("a_t",)), ("b", ("b",))]
    assert [reason.removeprefix(f"{tmp_path}/") for skill in found.left_out for reason in skill.reasons] == [
        "m.toml:2: skills.a.docker.image: the variable A is not set in the server's environment: set it, or write "
        "${A:-default}",
        "m.toml:11: skills.b.docker.volumes[0]: the variable B is not set in the server's environment: names a folder",
    ]
    assert [skill.name for skill in read([tmp_path], {"A": "a", "B": "/b"}, ()).skills] == ["a", "b", "c"]


def test_a_fault_beside_a_variable_that_is_not_set_is_a_fault(tmp_path):
    (tmp_path / "m.toml").write_text(HEAD + '[skills.a]\nsource = "docker:${A}"\ndocker.pids = 0\n')
    found = read([tmp_path], {}, ())
    assert (found.skills, found.left_out) == ((), ())
    assert len(found.faults) == 1


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("env = ['A=1']", "did you mean 'environment'?"),
        ("args = ['x']", "did you mean 'command'?"),
        ("mounts = []", "did you mean 'volumes'?"),
        ("workdir = '/x'", "did you mean 'working_dir'?"),
        ("mem_limit = '1g'", "did you mean 'memory'?"),
        ("ports = ['80:80']", "nothing reaches a sandbox from outside"),
        ("privileged = true", "no sandbox is privileged"),
        ("env_file = '.env'", "write its variables into 'environment'"),
    ],
)
def test_a_word_of_docker_or_compose_is_answered_with_the_key_that_means_it(tmp_path, key, says):
    (fault,) = faults(tmp_path, HEAD + SKILL + key + "\n")
    assert f": skills.x.docker.{key.split(' ')[0]}: unknown key; {says}" in fault


@pytest.mark.parametrize(
    ("volume", "says"),
    [
        (".:/w", "for the task's files write '${SKILL_WORKDIR}:/w'"),
        ("./:/w:ro", "for the task's files write '${SKILL_WORKDIR}:/w:ro'"),
        ("$PWD:/w", "for the task's files write '${SKILL_WORKDIR}:/w'"),
        ("$(pwd):/w", "for the task's files write '${SKILL_WORKDIR}:/w'"),
        ("./data:/d:ro", "for the task's files write '${SKILL_WORKDIR}:/d:ro'"),
        ("cache:/c:z", "after the target only ':ro' has a meaning: write 'cache:/c'"),
        ("C:/data:/d", "is a path of Windows"),
        ("/data", "is a volume of the engine without a name; leave it out"),
        ("/srv:/d:ro,z", "after the target only ':ro' has a meaning: write '/srv:/d:ro'"),
        ("/srv:/d:cached", "after the target only ':ro' has a meaning: write '/srv:/d'"),
    ],
)
def test_a_volume_of_a_shell_line_is_answered_with_what_to_write(tmp_path, volume, says):
    (fault,) = faults(tmp_path, HEAD + SKILL + f"volumes = ['{volume}']\n")
    assert says in fault
    for key in (f"extra_args = ['-v', '{volume}']", f"extra_args = ['-v{volume}']"):
        (tmp_path / "m.toml").write_text(HEAD + SKILL + key + "\n")
        found = read([tmp_path / "m.toml"], {}, ())
        refused = [refusal.reason for skill in found.skills for refusal in skill_profile(skill, Settings()).refused]
        assert says in str([*found.faults, *refused])


def test_a_tilde_in_a_volume_is_the_home_of_the_server_s_user(tmp_path):
    for key in ("volumes = ['~/x:/y']", "extra_args = ['-v', '~/x:/y']", "extra_args = ['--volume=~/x:/y']"):
        made = skill_profile(one(tmp_path, HEAD + SKILL + key + "\n", {"HOME": "/home/me"}), Settings())
        assert made.mounts == (Mount("/home/me/x", "/y"),)


def test_an_unset_folder_of_the_shell_leaves_the_skill_out_and_says_what_to_write(tmp_path):
    (tmp_path / "m.toml").write_text(HEAD + SKILL + "volumes = ['${PWD}:/workdir']\n")
    (skill,) = read([tmp_path / "m.toml"], {}, ()).left_out
    assert "the variable PWD is not set" in skill.reasons[0]
    assert skill.reasons[0].endswith("for the task's files write '${SKILL_WORKDIR}:/workdir'")


def test_a_variable_may_be_passed_on_only_where_it_is_set(tmp_path):
    text = HEAD + SKILL + 'environment = ["TOKEN?=${TOKEN}", "B?=b", "C?=${C:-}x", "D?=a=b?=c"]\n'
    assert one(tmp_path, text).environment == (("B", "b"), ("C", "x"), ("D", "a=b?=c"))
    assert one(tmp_path, text, {"TOKEN": "t"}).environment[0] == ("TOKEN", "t")
    assert one(tmp_path, text, {"TOKEN": ""}).environment[0] == ("TOKEN", "")
    (fault,) = faults(tmp_path, HEAD + SKILL + 'environment = ["1?=${TOKEN}"]\n')
    assert "'1' is not the name of an environment variable" in fault


def test_a_variable_of_all_skills_may_be_passed_on_only_where_it_is_set(tmp_path):
    text = HEAD + '[defaults]\nenvironment = ["TOKEN?=${TOKEN}"]\n' + SKILL
    assert one(tmp_path, text).environment == ()
    assert one(tmp_path, text, {"TOKEN": "t"}).environment == (("TOKEN", "t"),)
