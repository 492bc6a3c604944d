"""One server of the fleet: the product's own decisions (`taskcell.pool.state`) over simulated pods."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, cast

from fleet import measured
from fleet.cell import Cell, Granted
from fleet.clock import Station, nothing
from fleet.cluster import Pod, PodState
from fleet.member import Member
from fleet.wanted import Wanted
from fleet.work import Call
from taskcell.config.policy_tables import PolicySettings
from taskcell.config.settings import Settings
from taskcell.errors import EngineUnavailable
from taskcell.model import TaskKey
from taskcell.policy.policy import Policy
from taskcell.pool import sharing
from taskcell.pool.pool import CREATION_PATIENCE
from taskcell.pool.slot import Lease, Slot, SlotState, Step
from taskcell.pool.state import Slots
from taskcell.profile.build import terminal_profile
from taskcell.sandbox.sandbox import Sandbox

if TYPE_CHECKING:
    from fleet.fleet import Fleet

PROFILE = Policy(PolicySettings()).authorize_profile(terminal_profile(Settings()))
SETTINGS = Settings().pool
CLAIM_KEPT = SETTINGS.acquire_timeout + sharing.CLAIM_KEPT
#: Seconds between two looks at idle sandboxes. The product looks more often; nobody waits for it.
TICK = 15.0


class Server:
    """Serves calls with sandboxes of its own. Every event of a server that has died means nothing."""

    def __init__(self, name: str, fleet: Fleet) -> None:
        self.name, self.fleet, self.cluster, self.lives = name, fleet, fleet.cluster, True
        self.slots = Slots(fleet.plan.bounds)
        self.loop = Station(fleet.clock)
        self.calls: dict[Call, None] = {}
        #: Tasks whose Lease this server holds, and when they were used last; and pods of which that is to be written.
        self.own: dict[TaskKey, float] = {}
        self.busy: dict[Pod, None] = {}
        self.wanted = Wanted(self.slots.bounds, TICK)
        self._pods: dict[Slot, Pod] = {}
        self._waiting: dict[Slot, list[Callable[[], None]]] = {}
        fleet.clock.after(TICK, self._tick)
        self.member = Member(self)

    # --- calls ---------------------------------------------------------------------------------------------------

    def serve(self, call: Call) -> None:
        """Serve a call of a task that is this server's, or say who has it. It holds the call until it is answered."""
        self.calls[call] = None
        self.loop.serve(measured.CALL_COST, self._still(call, self._look))

    def _look(self, call: Call) -> None:
        if call.task.key in self.own:
            self._lease(call)
        else:
            leg, task = call.leg, call.task.key
            self.cluster.claim(task, self.name, lambda holder: self._claimed(call, leg, holder))

    def _claimed(self, call: Call, leg: int, holder: str) -> None:
        task = call.task.key
        if not self.lives:
            return
        if holder == self.name:
            self.own[task] = self.fleet.clock.now
        if call.leg != leg or call not in self.calls:
            return
        if holder == self.name:
            self._lease(call)
        elif holder not in self.fleet.servers:  # it is dead, and this call comes before the next look
            self.cluster.seize(task, holder, self.name, lambda wins: self._seized(call, leg, holder, wins))
        else:
            del self.calls[call]
            self.fleet.hand_on(call, holder)

    def _seized(self, call: Call, leg: int, dead: str, wins: bool) -> None:
        task = call.task.key
        if wins and self.lives:
            self.own[task] = self.fleet.clock.now
            pod = self.cluster.by_task.get(task)
            if pod is not None and pod.owner == dead:
                self.adopt(pod, dead)
        if self.lives and call.leg == leg and call in self.calls:
            self._look(call)

    def has(self, task: TaskKey) -> bool:
        """Whether it has a sandbox of a task."""
        return any(slot.task == task for slot in self.slots)

    def _lease(self, call: Call) -> None:
        self.own[call.task.key] = self.fleet.clock.now
        lease = self.slots.lease((call.task.key, PROFILE.name), PROFILE)
        self._assign()
        if lease.slot is not None:
            self._when_ready(lease, call)
            return
        lease.granted = cast("object", Granted(lambda: self._when_ready(lease, call)))  # type: ignore[assignment]
        self.fleet.clock.after(SETTINGS.acquire_timeout, self._still(call, partial(self._give_up, lease)))

    def _give_up(self, lease: Lease, call: Call) -> None:
        if lease.slot is None:
            self._carry_out(self.slots.withdraw(lease, self.fleet.clock.now))
            self._answer(call, "no room")

    def _when_ready(self, lease: Lease, call: Call) -> None:
        slot = lease.slot
        assert slot is not None
        if slot.state is SlotState.CREATING:
            self._waiting.setdefault(slot, []).append(self._still(call, partial(self._run, lease)))
            self.fleet.clock.after(CREATION_PATIENCE, self._still(call, partial(self._not_ready, lease)))
        else:
            self._run(lease, call)

    def _not_ready(self, lease: Lease, call: Call) -> None:
        """No node has had room for the pod in all that time; it is still wanted, and the next call finds it."""
        if not call.ends and lease.slot is not None and lease.slot.state is SlotState.CREATING:
            call.leg += 1
            self._carry_out(self.slots.withdraw(lease, self.fleet.clock.now))
            self._answer(call, "failed")

    def _run(self, lease: Lease, call: Call) -> None:
        slot, now = lease.slot, self.fleet.clock.now
        assert slot is not None
        if slot.state is SlotState.FAILED:
            self._carry_out(self.slots.withdraw(lease, now))
            self._answer(call, "failed")
            return
        if not call.ends:
            self.cluster.pass_call()
            self.busy[cast("Cell", slot.sandbox).pod] = None
            call.ends = now + call.seconds + measured.COMMAND.draw(self.fleet.random)
        self.fleet.clock.after(max(0.0, call.ends - now), self._still(call, partial(self._end, lease)))

    def _end(self, lease: Lease, call: Call) -> None:
        slot, away = lease.slot, self.cluster.away_until - self.fleet.clock.now
        assert slot is not None
        cell = cast("Cell", slot.sandbox)
        is_cut_off = cell.pod.state is PodState.LOST and cell.usable
        if away > 0 or is_cut_off:
            # The session outlives its stream: it is taken up again, or given up when the pod is known to be lost.
            wait = away + measured.OPEN_CHANNEL.p50 if away > 0 else 1.0
            self.fleet.clock.after(wait, self._still(call, partial(self._end, lease)))
            return
        outcome = "ok" if cell.usable else "lost"
        self._carry_out(self.slots.withdraw(lease, self.fleet.clock.now))
        self._answer(call, outcome)

    def _answer(self, call: Call, outcome: str) -> None:
        del self.calls[call]
        if outcome == "ok" and call.task.calls == 1 and call.task.closes:
            self._delete(self.slots.take(lambda slot: slot.task == call.task.key))
        self.fleet.answered(call, outcome)
        self._assign()

    def _assign(self) -> None:
        if self.slots.waiting:
            self._carry_out(self.slots.assign(self.fleet.clock.now))

    def _still(self, call: Call, then: Callable[[Call], None]) -> Callable[[], None]:
        """The same, unless the server has died by then or the call is on another leg of its way."""
        leg = call.leg

        def event() -> None:
            if self.lives and call.leg == leg and call in self.calls:
                then(call)

        return event

    # --- sandboxes -----------------------------------------------------------------------------------------------

    def _carry_out(self, steps: Iterable[Step]) -> None:
        for step in steps:
            self._delete(step.evicted)
            if step.retired is not None:
                self._delete([step.retired])
            if step.check:
                self._take_warm(step.slot)
            elif step.create:
                self._create(step.slot)

    def _create(self, slot: Slot) -> None:
        pod = self._pods[slot] = Pod(self.name, None if slot.is_warm else slot.task)
        pod.started = lambda: self.cluster.open_channel(lambda: self._started(slot, pod))
        pod.failed = lambda: self._failed(slot, pod)
        self.cluster.create(pod)

    def _started(self, slot: Slot, pod: Pod) -> None:
        if not self.lives:  # nobody has it: a sweep finds it
            self.cluster.delete(pod)
            return
        if slot.is_in_place and not slot.is_warm and pod.task is None:
            # A task took it while it was being made.
            self.cluster.assign(pod, self.name, self.name, slot.task, lambda _: self._ready(slot, pod))
        else:
            self._ready(slot, pod)

    def _ready(self, slot: Slot, pod: Pod) -> None:
        if not self.lives:
            return
        if slot.state is SlotState.RETIRED:
            self.cluster.delete(pod)
        elif slot.sandbox is None and pod.state is not PodState.RUNNING:
            self._failed(slot, pod)
        else:
            self._use(slot, pod)

    def _use(self, slot: Slot, pod: Pod) -> None:
        self.slots.ready(slot, slot.sandbox or cast("Sandbox", Cell(pod)))
        self.cluster.write(nothing)  # the annotation that says what is in the pod
        self._go_on(slot)
        self._carry_out(self.slots.next_warm(self.fleet.clock.now))

    def _failed(self, slot: Slot, pod: Pod) -> None:
        if self.lives and slot.state is SlotState.CREATING:
            self.slots.failed(slot, EngineUnavailable("The node was lost."))
            self._go_on(slot)
        self.cluster.delete(pod)

    def _take_warm(self, slot: Slot) -> None:
        cell = cast("Cell", slot.sandbox)
        self.cluster.assign(cell.pod, self.name, self.name, slot.task, lambda _: self._ready(slot, cell.pod))

    def adopt(self, pod: Pod, dead: str) -> None:
        """Take a dead server's pod; the calls of its task wait for it here."""
        task = pod.task
        if task is None or pod.owner != dead or self.has(task):
            return
        slot = Slot((task, PROFILE.name), PROFILE, self.fleet.clock.now, idle_since=self.fleet.clock.now)
        self.slots.inherit(slot)
        self._pods[slot] = pod

        def taken(wins: bool) -> None:
            if not self.lives:
                return
            if wins and pod.state is PodState.RUNNING:
                self.fleet.adopted.append(self.fleet.clock.now - self.fleet.died[dead])
                self.cluster.open_channel(lambda: self._ready(slot, pod))
            else:
                self._failed(slot, pod) if wins else self._lose_race(slot)

        self.cluster.assign(pod, dead, self.name, task, taken)

    def _lose_race(self, slot: Slot) -> None:
        self.slots.failed(slot, EngineUnavailable("Another server has it."))
        self._go_on(slot)

    def _go_on(self, slot: Slot) -> None:
        for then in self._waiting.pop(slot, ()):
            then()

    def lose(self, pod: Pod) -> None:
        """The pod's node is gone."""
        for slot in self.slots:
            cell = cast("Cell | None", slot.sandbox)
            if cell is not None and cell.pod is pod:
                cell.doomed, cell.channel.alive = "its node was lost", False

    def _delete(self, slots: Iterable[Slot]) -> None:
        for slot in slots:
            pod = self._pods.pop(slot, None)
            if pod is not None:
                self.busy.pop(pod, None)
                self.cluster.delete(pod)

    def _tick(self) -> None:
        if not self.lives:
            return
        now = self.fleet.clock.now
        self.wanted.note(self.slots, self.calls)
        self._delete(self.slots.take_idle(now, SETTINGS.idle_ttl))
        self._carry_out(self.slots.next_warm(now))
        here = {slot.task for slot in self.slots}
        for task in [one for one, used in self.own.items() if one not in here and now - used > CLAIM_KEPT]:
            del self.own[task]
            self.cluster.release(task, self.name)
        if len(self.slots) or self.fleet.is_working:
            self.fleet.clock.after(TICK, self._tick)

    def end(self) -> None:
        """Close what is left, as a server does that is stopped."""
        self._delete(self.slots.take(lambda slot: True))
        self.lives = False
