"""Sessions of some fifty commands, as agents give them, in images of five languages: every answer is the right one."""

from __future__ import annotations

import docker
import pytest

from agent_task import Task
from gateways import GatewayFactory
from language_images import built
from sessions import LANGUAGES, Language, session

pytestmark = [pytest.mark.anyio, pytest.mark.engine]


@pytest.mark.parametrize("language", LANGUAGES, ids=lambda language: language.image.name)
async def test_every_answer_of_a_session_is_right(
    language: Language, docker_api: docker.APIClient, gateway: GatewayFactory
) -> None:
    steps = list(session(language))
    assert len(steps) >= 50
    with built(docker_api, language.image) as reference:
        async with gateway(f'[terminal]\nimage = "{reference}"\n') as gw:
            task = Task(gw)
            for number, step in enumerate(steps):
                result = await task.terminal(step.command, **step.more)
                where = f"step {number}: {step.command}\n{result}"
                if step.stdout != "*":
                    assert result.stdout == step.stdout, where
                assert (result.exit_code, result.workdir) == (step.code, step.workdir), where
                assert len(result.notes) == step.notes, where
            left = await task.process("list")
            assert [info.process_id for info in left.processes if info.alive] == []
