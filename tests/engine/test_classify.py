"""Messages of real engines, and what they become for the user."""

from __future__ import annotations

import pytest
import requests
from docker.errors import APIError, NotFound

from taskcell.engine.docker.classify import (
    classify,
    is_gone,
    is_in_use,
    is_not_running,
    lacks_supervisor,
    lacks_workspace,
)
from taskcell.errors import EngineError, EngineUnavailable, ImageMissing

#: Captured from Docker 20.10 and Podman 5.4: status, message, and what the user must read.
CAPTURED = [
    (500, "write /var/lib/docker/tmp/x: no space left on device", "disk is full"),
    (400, "Unknown runtime specified runsc", "does not have the configured runtime"),
    (
        500,
        'could not select device driver "" with capabilities: [[gpu]]',
        "no GPU support",
    ),
    (404, "network backend not found", "does not have the profile's network"),
    (
        500,
        "container create: opening seccomp profile failed: open /tmp/x.json: no such file or directory",
        "TMPDIR",
    ),
    (
        500,
        "unable to find user 0: read /var/lib/docker/overlay2/fe3e/merged/etc/passwd: is a directory",
        "Use an image in which that is a file.",
    ),
    (
        500,
        "evalSymlinksInScope: too many links in /var/lib/docker/overlay2/8657/merged/etc/group",
        "cannot read the image's /etc/group",
    ),
    (400, "Cannot mkdir: /workspace is not a directory", "Use an image in which that is a folder, or is missing."),
    (
        500,
        'OCI runtime create failed: error mounting "tmpfs" to rootfs at "/tmp": mount tmpfs:/tmp, flags: 0x6, data: '
        "size=268435456,mode=1777: not a directory: unknown: Are you trying to mount a directory onto a file",
        "the image has something else where the sandbox mounts a folder",
    ),
    (500, "something that nobody has seen before", "something that nobody has seen before"),
]


def api_error(status: int, message: str) -> APIError:
    response = requests.Response()
    response.status_code = status
    return APIError(message, response=response, explanation=message)


@pytest.mark.parametrize(("status", "said", "read"), CAPTURED)
def test_a_message_becomes_a_sentence_with_what_was_being_done(status: int, said: str, read: str) -> None:
    error = classify(api_error(status, said), "start the sandbox")
    assert isinstance(error, EngineError)
    assert "could not start the sandbox" in str(error)
    assert read in str(error)
    assert "\n" not in str(error)


def test_an_engine_that_does_not_answer_is_unavailable() -> None:
    for failure in (requests.exceptions.ConnectionError("x"), requests.exceptions.ReadTimeout("x"), OSError("x")):
        assert isinstance(classify(failure, "start"), EngineUnavailable)


def test_our_own_errors_pass_unchanged() -> None:
    ours = ImageMissing("The image x is missing.")
    assert classify(ours, "start") is ours


def test_gone_in_use_and_not_running_are_told_apart() -> None:
    conflict = api_error(409, "removal of container x is already in progress")
    running = api_error(409, "Container x is not running")
    assert is_gone(conflict)
    assert not is_gone(running)
    assert is_gone(NotFound("x", response=api_error(404, "x").response))
    assert is_not_running(running)
    assert is_in_use(api_error(409, "remove x: volume is in use"))


def test_an_emptied_supervisor_volume_is_recognised() -> None:
    said = 'exec: "/.taskcell/supervisor": stat /.taskcell/supervisor: no such file or directory: unknown'
    assert lacks_supervisor(api_error(400, said))
    assert not lacks_supervisor(api_error(400, "no such file or directory"))


def test_files_that_went_with_their_last_container_are_recognised() -> None:
    assert lacks_workspace(api_error(500, "get 391256b5: no such volume"), ["a1"])
    assert lacks_workspace(api_error(404, "No such container: a1"), ["a1"])
    assert not lacks_workspace(api_error(404, "No such container: b2"), ["a1"])
    assert not lacks_workspace(api_error(500, "get data: no such volume"), [])


def test_a_long_message_is_cut() -> None:
    assert len(str(classify(api_error(500, "x" * 10_000), "start"))) < 700
