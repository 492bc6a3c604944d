"""The attacks: what hostile programs, images, clients and files try, what holds, and the tests that try it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Attack:
    """One row of the suite's table.

    Arguments:
        about: what is attacked.
        tries: what the attacker does.
        holds: what stands all the same.
        tests: beginnings of the names of tests, with their files below `tests/`.
    """

    about: str
    tries: str
    holds: str
    tests: tuple[str, ...]


_IMAGES, _PID_1, _WALLS = "hostile/test_images.py::", "hostile/test_pid_1.py::", "hostile/test_walls.py::"
_KILL, _SUDO, _REFUSED = "sandbox/test_kill.py::", "sandbox/test_sudo.py::", "sandbox/test_sudo_refused.py::"
_HARDENING, _SECCOMP, _ADOPTION = "engine/test_hardening.py::", "engine/test_seccomp.py::", "pool/test_adoption.py::"
_LIMITS, _TREES = "supervisor/test_limits.py::", "supervisor/test_random_trees.py::"
_PROXY, _NAMES = "egress/test_hostile.py::", "egress/test_destinations.py::"
_PORTS, _NETWORK = "http/test_ports.py::", "hostile/test_network.py::"
_RECORDS, _STDIO = "deployment/test_records.py::", "mcp/transport/test_stdio.py::"

ATTACKS = (
    # --- kills
    Attack(
        "kill",
        "a process whose main thread has ended",
        "it dies with its command, and counts while it lives",
        (
            f"{_KILL}test_after_a_timeout_nothing_is_alive_on_the_host[as a process whose main thread has ended]",
            f"{_KILL}test_after_a_cancel_nothing_is_alive_on_the_host[as a process whose main thread has ended]",
            "supervisor/test_kill.py::test_a_process_whose_main_thread_has_ended_counts_as_alive",
        ),
    ),
    Attack(
        "kill",
        "setsid, double forks, daemons, ignored TERM, stopped processes",
        "nothing is alive on the host after a time-out or a cancel",
        (f"{_KILL}test_after_a_timeout", f"{_KILL}test_after_a_cancel"),
    ),
    Attack(
        "kill",
        "random trees: threads, ptrace, vfork, CLONE_PARENT, sessions, run-aways",
        "none is alive, none is miscounted",
        (f"{_TREES}test_a_kill_leaves_nothing_of_a_random_tree_and_counts_it_right",),
    ),
    Attack(
        "kill",
        "random trees in real sandboxes, as the user and as root by sudo",
        "none is alive, none is miscounted",
        ("hostile/test_trees.py::",),
    ),
    Attack(
        "kill",
        "a chain that forks faster than a scan, across the end of the pids",
        "it is dead before the supervisor gives up",
        (f"{_TREES}test_a_chain_that_forks_faster",),
    ),
    Attack(
        "kill",
        "fork bombs, by time-out and cancel, as root too",
        "dead in time, and the sandbox works on",
        (f"{_KILL}test_a_fork_bomb", f"{_SUDO}test_a_fork_bomb"),
    ),
    Attack(
        "kill",
        "what root starts by sudo, detached in six ways",
        "nothing is alive on the host after a time-out or a cancel",
        (f"{_SUDO}test_after_a_timeout", f"{_SUDO}test_after_a_cancel"),
    ),
    # --- PID 1
    Attack(
        "PID 1",
        "prlimit of every limit, by root with sudo",
        "never 0 for what lives; the next call works within five seconds",
        (f"{_PID_1}test_root_takes", f"{_SUDO}test_root_that_takes", f"{_LIMITS}test_"),
    ),
    Attack(
        "PID 1",
        "memory filled with files, and with processes that take the rest",
        "never 0 for what lives; the next call works within five seconds",
        (f"{_PID_1}test_a_sandbox_without_memory",),
    ),
    Attack(
        "PID 1",
        "no free descriptor (an engine that allows 64)",
        "a command that cannot start says so; every kill is counted",
        (f"{_PID_1}test_a_sandbox_without_descriptors",),
    ),
    Attack(
        "PID 1",
        "no free pid",
        "the answer says who fills the sandbox; a kill makes room",
        (f"{_PID_1}test_a_sandbox_without_pids", "sandbox/test_counts.py::test_a_full_sandbox"),
    ),
    Attack(
        "PID 1",
        "signals, tracing, its memory, its socket and its descriptors",
        "nothing reaches it; root by sudo harms its own sandbox at most",
        (
            f"{_HARDENING}test_what_runs_in_it_cannot_reach_the_supervisor",
            f"{_SUDO}test_root_",
            f"{_SUDO}test_no_descriptor",
        ),
    ),
    Attack(
        "PID 1",
        "SIGSTOP of it or of its channel, and the end of its channel alone",
        "found out in five seconds; the next call has the files",
        (f"{_PID_1}test_a_signal_stops", "pool/test_liveness.py::", "engine/test_standing.py::"),
    ),
    Attack(
        "PID 1",
        "random frames of a stranger and of its server",
        "it goes on, and no sanitizer complains",
        ("supervisor/test_fuzz.py::test_the_supervisor_outlives",),
    ),
    # --- images
    Attack(
        "image",
        "/etc/passwd as a FIFO, /etc/group as a link to /dev/zero, both",
        "one clear answer in bounded time, no more starts of it, nothing left",
        (f"{_IMAGES}test_an_image_whose_list_of_users_never_ends",),
    ),
    Attack(
        "image",
        "VOLUME at /.taskcell, /proc, / and /dev",
        "refused in a sentence that names the path",
        (f"{_HARDENING}test_an_image_with_a_volume_where",),
    ),
    Attack(
        "image",
        "a user that is root, or has root's group",
        "refused in a sentence",
        (f"{_HARDENING}test_a_name_to_which_the_image_gives_root",),
    ),
    Attack(
        "image",
        "without sudo, or with another program in its place, in a profile with sudo",
        "no process may gain privileges; one note says why",
        (f"{_SUDO}test_an_image_without_sudo", f"{_SUDO}test_a_sudo_that_is_another_program"),
    ),
    Attack(
        "engine",
        "a start, a removal or a pull that never ends",
        "answered in time, and asked for again",
        ("pool/test_leftovers.py::test_a_start_that_never_ends", "pool/test_leftovers.py::test_a_server_ends_in_time"),
    ),
    Attack(
        "engine",
        "a server killed while it fills the supervisor's volume",
        "the next start takes over at once",
        ("engine/test_supervisor_volume.py::",),
    ),
    # --- the walls
    Attack(
        "memory",
        "150 loopback connections full of data",
        "bounded to an eighth of the memory limit",
        (f"{_HARDENING}test_what_connections_hold",),
    ),
    Attack(
        "memory",
        "System V shared memory, queues and semaphores that outlive their command",
        "bounded; memory goes with the last command, and notes name the rest",
        (
            f"{_HARDENING}test_what_system_v",
            f"{_HARDENING}test_shared_memory",
            f"{_WALLS}test_files_that_fill_the_memory",
        ),
    ),
    Attack(
        "kernel",
        "vsock, io_uring, keyrings, userfaultfd, bpf, new mount calls, 46 families of sockets",
        "closed, and never weaker than the engine's own filter",
        (f"{_SECCOMP}test_",),
    ),
    Attack(
        "kernel",
        "all inotify instances of a user",
        "shared by the user's sandboxes; another user has its own, and a close gives all back",
        (f"{_WALLS}test_inotify",),
    ),
    Attack(
        "kernel",
        "all terminals of the host",
        "a quarter stays the host's; a close gives all back",
        (f"{_WALLS}test_terminals",),
    ),
    # --- ends
    Attack(
        "end",
        "a sandbox that cannot be closed",
        "keeps no other, and is named",
        (
            "pool/test_end.py::test_a_sandbox_that_cannot_be_closed",
            "pool/test_faults.py::test_a_paused_sandbox_is_removed",
            "pool/test_pool.py::test_a_container_that_the_engine_cannot_remove",
        ),
    ),
    Attack(
        "end",
        "kill -9 of a server, of two with one task, and of their heir",
        "sandboxes end by themselves or live on; no file goes without a word",
        (
            "pool/test_faults.py::test_a_killed_servers_sandboxes_remove_themselves",
            f"{_ADOPTION}test_of_two_killed_servers",
            f"{_ADOPTION}test_an_heir_that_is_killed",
            f"{_ADOPTION}test_that_files_are_lost",
            f"{_ADOPTION}test_a_killed_servers_sandboxes_and_volumes",
            f"{_WALLS}test_a_warm_sandbox_that_nobody_claims",
            "hostile/test_two_servers.py::",
        ),
    ),
    # --- the wire and the state
    Attack(
        "client",
        "200 answers of 3.5 MB that it never reads",
        "bounded memory; commands are cancelled and end with the server",
        ("mcp/test_backpressure.py::", f"{_STDIO}test_answers_to_a_client_that_does_not_read"),
    ),
    Attack(
        "client",
        "an id that runs already, lines without end, a closed reading end",
        "refused or noticed, and the first call stays cancellable",
        (
            f"{_STDIO}test_the_id_of_a_request_that_runs",
            f"{_STDIO}test_a_message_over_the_limit",
            f"{_STDIO}test_a_client_that_closes_its_reading_end",
        ),
    ),
    Attack(
        "state",
        "impossible values, FIFOs, links to /dev/zero, linked and foreign folders",
        "a line in the log, and no wait",
        (
            f"{_RECORDS}test_a_file_with_impossible",
            f"{_RECORDS}test_what_is_not_our_own",
            f"{_RECORDS}test_a_lock_that_is_not",
            f"{_RECORDS}test_a_key_that_is_not",
            f"{_RECORDS}test_a_linked_folder",
            f"{_RECORDS}test_a_strangers_folder",
            f"{_RECORDS}test_a_workspaces_note_that_is_hostile",
            f"{_RECORDS}test_a_file_is_read_no_further",
        ),
    ),
    Attack(
        "sudo",
        "a wrong password, one that a command has changed, floods, forged askpass",
        "found out once, said with what helps; the password reaches sudo alone",
        (f"{_REFUSED}test_", f"{_SUDO}test_the_askpass", f"{_SUDO}test_a_flood", f"{_SUDO}test_no_password"),
    ),
    Attack(
        "terminal",
        "escape sequences in output on a person's terminal",
        "only what shows, colours and places text passes",
        ("cli/test_control_sequences.py::",),
    ),
    # --- the network by name, and ports
    Attack(
        "egress",
        "ten thousand connections: silent, half a head, garbage, refused hosts, resets",
        "no more at once, and no more a second, than the task has places; calls go on",
        (
            f"{_NETWORK}test_ten_thousand_connections_out",
            f"{_PROXY}test_a_thousand_connections",
            f"{_PROXY}test_half_a_request",
            f"{_PROXY}test_a_head_without_end",
            f"{_PROXY}test_more_connections",
            f"{_PROXY}test_too_many_bytes",
            "egress/test_sandbox.py::test_a_task_that_floods",
        ),
    ),
    Attack(
        "egress",
        "a name spelled otherwise, garbage, requests of two lengths, a second request behind the first",
        "one spelling of each host, each request judged by itself, no other lookup",
        (
            f"{_PROXY}test_no_other_spelling",
            f"{_PROXY}test_garbage",
            f"{_PROXY}test_a_request_of_two_lengths",
            f"{_PROXY}test_a_second_request",
            f"{_NAMES}test_",
        ),
    ),
    Attack(
        "egress",
        "a name that leads to a private address, later or at once, or to the server's own machine",
        "what was judged is connected to, and nothing else",
        (f"{_PROXY}test_a_name_that_moves", f"{_PROXY}test_a_public_address"),
    ),
    Attack(
        "egress",
        "a server that never answers or breaks off, a program that never reads, a supervisor taken over, reused ids",
        "each holds its own window, and a broken answer never looks whole",
        (
            f"{_PROXY}test_a_program_that_never_reads",
            f"{_PROXY}test_a_server_that_never_answers",
            f"{_PROXY}test_an_answer_that_breaks_off",
            f"{_PROXY}test_a_broken_connection",
            f"{_PROXY}test_a_supervisor",
            "supervisor/test_tunnels.py::test_numbers_are_not",
            "supervisor/test_tunnels.py::test_a_number_that_is_in_use",
            "supervisor/test_tunnels.py::test_requests_about_a_tunnel",
        ),
    ),
    Attack(
        "egress",
        "raw sockets, routes, other addresses, names",
        "nothing but the proxy leads out",
        ("egress/test_sandbox.py::test_nothing_but_the_proxy",),
    ),
    Attack(
        "ports",
        "ten thousand forwarded connections to a server that resets, floods, or never reads",
        "the task's bound holds, no honest one is lost, calls go on",
        (f"{_NETWORK}test_ten_thousand_forwarded", f"{_NETWORK}test_ten_thousand_connections_at_once"),
    ),
    Attack(
        "ports",
        "a server that never ends its side of connections whose person has gone",
        "they give their places back; a person who waits for an answer keeps theirs",
        (f"{_NETWORK}test_a_server_that_never_ends",),
    ),
    Attack(
        "ports",
        "garbage for an answer, and pages that use the origin or the credentials of their reader",
        "said or made harmless; neither tokens nor cookies go in or come out",
        (
            f"{_PORTS}test_garbage",
            f"{_PORTS}test_an_answer",
            f"{_PORTS}test_the_callers_credentials",
            f"{_PORTS}test_a_server_that_never",
            f"{_PORTS}test_a_client_that_never",
            f"{_PORTS}test_an_unasked",
        ),
    ),
    # --- what a model believes
    Attack(
        "model",
        "forged endings, notes, resources and tool results in output, names and arguments",
        "whatever a sandbox prints or names, the server's own words do not change",
        ("hostile/test_voices.py::", "mcp/test_forged_words.py::test_what_a_sandbox_prints"),
    ),
)
