"""How many calls come in, and what happens to those that run at the end."""

from __future__ import annotations

import anyio
import pytest

from taskcell.errors import NoRoom, SandboxLost
from taskcell.gateway import admission as module
from taskcell.gateway.admission import Admission, CallLimits

pytestmark = pytest.mark.anyio


async def test_one_principal_is_bounded_and_the_others_are_not() -> None:
    admission = Admission(CallLimits(max_calls_per_principal=1))
    with admission.admitted("ada"):
        with admission.admitted("bob"):
            assert admission.running == 2
        with pytest.raises(NoRoom, match=r"1 of your calls .* call again when one"), admission.admitted("ada"):
            pass
    with admission.admitted("ada"):
        pass
    assert admission.running == 0


async def test_all_calls_together_are_bounded() -> None:
    admission = Admission(CallLimits(max_concurrent_calls=2))
    full = pytest.raises(NoRoom, match=r"max_concurrent_calls allows: call again in a few seconds")
    with admission.admitted("ada"), admission.admitted("bob"), full, admission.admitted("eve"):
        pass


async def test_calls_in_a_minute_are_bounded_and_the_error_says_how_long_to_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1000.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    admission = Admission(CallLimits(calls_per_minute=2))
    with admission.admitted("ada"):
        pass
    now = 1020.0
    with admission.admitted("ada"):
        pass
    now = 1030.0
    with pytest.raises(NoRoom, match=r"call again in 30 s"), admission.admitted("ada"):
        pass
    with admission.admitted("bob"):
        pass
    now = 1060.0
    with admission.admitted("ada"):
        pass


async def test_a_refused_call_counts_for_nothing() -> None:
    admission = Admission(CallLimits(max_calls_per_principal=1, calls_per_minute=2))
    with admission.admitted("ada"):
        for _ in range(5):
            with pytest.raises(NoRoom, match="of your calls"), admission.admitted("ada"):
                pass
    with admission.admitted("ada"):
        pass


async def test_at_the_end_running_calls_get_an_error_and_new_ones_are_refused() -> None:
    admission, outcomes, running = Admission(), list[str](), anyio.Event()

    async def call() -> None:
        try:
            with admission.admitted("ada"):
                running.set()
                await anyio.sleep_forever()
        except SandboxLost as error:
            outcomes.append(str(error))

    with anyio.fail_after(10):
        async with anyio.create_task_group() as calls:
            calls.start_soon(call)
            await running.wait()
            admission.close()
            with pytest.raises(SandboxLost, match="closing"), admission.admitted("bob"):
                pass
            admission.cancel()
            await admission.ended()
    assert len(outcomes) == 1
    assert "the call was ended" in outcomes[0]
