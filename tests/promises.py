"""What users are promised, and the tests that hold it: one row for each promise.

`test_promises.py` holds the table to the tests both ways: every test named here exists, and every test of a real
sandbox is named here.
"""

from __future__ import annotations

PROMISES: dict[str, tuple[str, ...]] = {
    # --- starting
    "Standard output is the protocol and nothing else": (
        "test_stray_prints_and_childrens_output_go_to_standard_error",
        "test_no_child_inherits_the_protocols_descriptors",
        "test_commands_inherit_neither_the_protocol_nor_the_servers_environment",
    ),
    "Both eras of the protocol are served": ("test_a_command_runs_and_its_answer_has_text_and_structure",),
    "The end of input and signals clean up and end the server with code 0 in time": (
        "test_the_end_of_input_kills_what_runs_and_ends_the_server_with_code_0",
        "test_a_signal_kills_what_runs_and_ends_the_server_with_code_0",
        "test_even_what_ignores_the_polite_signal_is_gone_in_time",
    ),
    "Every command of the command line has help with an example; bad usage exits 2": (
        "test_every_command_has_help_with_an_example_and_the_common_options",
        "test_bad_usage_is_exit_code_2_on_standard_error",
    ),
    # --- errors
    "Bad input costs nothing but one clear answer": (
        "test_bad_calls_cost_nothing_but_their_answer",
        "test_bad_arguments_are_told_in_the_result",
        "test_an_unknown_tool_is_invalid_params_and_names_the_nearest",
        "test_garbage_is_answered_line_by_line_and_the_server_lives_on",
        "test_a_huge_line_is_refused_and_the_server_lives_on",
        "test_a_program_that_is_not_there_and_a_folder_that_is_not_there_are_named",
    ),
    "A faulty configuration or manifest names file, line and key": (
        "test_a_faulty_configuration_is_one_sentence_on_standard_error_and_nothing_on_the_protocol",
        "test_each_fault_of_a_manifest_is_a_line_with_file_line_and_key",
    ),
    "The supervisor gets into every sandbox, whatever became of its volume": (
        "test_the_supervisors_volume_is_filled_again_when_somebody_removes_it_and_older_ones_go",
    ),
    "No engine, no image, and an engine that goes away each end in one clear sentence": (
        "test_no_engine_says_where_it_looked",
        "test_without_an_engine_the_server_still_answers_and_says_what_to_do",
        "test_a_missing_image_says_how_to_get_it",
        "test_an_engine_that_goes_away_in_the_middle_loses_the_command_and_says_so_at_the_next",
    ),
    # --- a run
    "A run answers output, exit code and signal, and a skill's failure is an error": (
        "test_a_command_answers_its_output_and_exit_code",
        "test_a_command_that_dies_by_a_signal_says_which",
        "test_a_non_zero_exit_code_is_an_error_for_a_skill_alone",
        "test_timeouts_oom_and_lost_sandboxes_are_errors_for_every_tool",
    ),
    "The terminal's stderr is merged in order; its shell's messages are right": (
        "test_merged_output_keeps_its_order",
        "test_a_syntax_error_is_the_shells_and_the_line_numbers_are_right",
    ),
    "The command's standard input is exactly the caller's, and never blocks": (
        "test_stdin_is_exactly_what_was_given",
        "test_without_stdin_a_reader_sees_its_end_at_once",
        "test_two_hundred_kilobytes_for_a_command_that_never_reads_do_not_block",
    ),
    "Directory and exported variables that a terminal command ends with are the next one's start": (
        "test_the_terminal_goes_on_where_it_ended",
        "test_variables_given_for_one_call_are_gone_at_the_next_and_give_back_what_they_hid",
        "test_a_working_directory_for_one_call_is_relative_to_the_workspace",
        "test_a_killed_command_keeps_no_state_and_a_finished_one_does",
        "test_a_removed_working_directory_is_replaced_by_the_workspace_with_a_note",
        "test_a_path_without_the_shell_does_not_lock_the_terminal_out",
        "test_an_answer_says_when_it_is_not_known_where_the_command_ended",
    ),
    "Output is bounded, never breaks an answer, and costs the server almost no memory": (
        "test_floods_of_every_kind_leave_the_server_small_and_the_answers_right",
        "test_invalid_utf8_and_nul_bytes_come_through",
        "test_eight_floods_at_once_do_not_stop_a_small_command",
        "test_whatever_comes_in_the_answer_is_bounded_encodable_and_counts_every_byte",
    ),
    "Commands at the same time keep their outputs apart": (
        "test_many_commands_at_once_in_one_sandbox_keep_their_outputs_apart",
        "test_calls_run_at_the_same_time",
    ),
    # --- the kill
    "After a timeout, a cancel and a closing nothing is alive, however it detached itself": (
        "test_after_a_timeout_nothing_is_alive_on_the_host",
        "test_after_a_cancel_nothing_is_alive_on_the_host",
        "test_a_fork_bomb_is_dead_after_its_timeout_and_the_sandbox_works",
        "test_a_fork_bomb_is_dead_after_a_cancel",
        "test_a_timeout_while_sudo_asks_leaves_nothing",
        "test_after_a_timeout_no_process_of_root_is_alive_on_the_host",
        "test_after_a_cancel_no_process_of_root_is_alive_on_the_host",
        "test_a_stopped_leader_is_woken_by_the_kill_and_reaps_what_is_dead",
        "test_a_fork_bomb_of_roots_is_dead_after_its_timeout_and_the_sandbox_works",
        "test_a_cancel_kills_everything_and_the_sandbox_works_on",
        "test_closing_a_task_under_a_command_kills_it_and_says_so",
        "test_a_cancelled_call_is_killed_gets_no_answer_and_the_server_lives_on",
        "test_the_client_leaving_kills_what_runs_and_the_server_ends_by_itself",
    ),
    "Partial output is always kept": ("test_a_timeout_keeps_what_was_printed",),
    "What a command left in the background lives until the sandbox closes, and the answer says so": (
        "test_what_a_finished_command_left_in_the_background_lives_on_until_the_sandbox_closes",
    ),
    "A timeout holds without the server": ("test_a_timeout_holds_without_a_connection",),
    # --- the sandbox
    "A process has no capability, no new privileges, a seccomp filter, bounded resources and only loopback": (
        "test_a_process_has_no_capability_no_new_privileges_and_a_seccomp_filter",
        "test_pids_memory_and_cpu_are_bounded_in_the_cgroup",
        "test_there_is_only_loopback",
        "test_the_root_file_system_is_read_only_and_what_can_be_written_is_bounded",
        "test_home_and_working_directory_are_the_workspace_and_nothing_of_the_host_is_in_the_environment",
    ),
    "What runs in a sandbox cannot reach its supervisor": (
        "test_what_runs_in_it_cannot_reach_the_supervisor",
        "test_a_name_that_the_image_gives_to_root_is_refused",
        "test_another_users_process_can_reach_neither_the_supervisor_nor_its_leader",
    ),
    "sudo gets its password exactly when it asks, and the command's standard input is the caller's": (
        "test_the_command_sees_exactly_the_callers_standard_input_whatever_sudo_does",
        "test_a_megabyte_of_standard_input_comes_through_sudo_whole",
        "test_a_wrong_password_is_sudos_own_failure_and_costs_no_standard_input",
        "test_a_skill_may_have_sudo_of_its_own",
    ),
    "A password for sudo is in no output, argument, environment, log, file, inspection or error": (
        "test_the_password_is_in_no_log_no_file_no_inspection_and_no_error",
        "test_a_password_of_the_environment_is_in_no_line_of_the_command_lines_debug_log",
        "test_the_askpass_program_tells_nobody_but_sudo",
        "test_no_password_is_written_to_a_fifo_that_root_made_for_others_to_read",
        "test_a_generated_password_is_each_sandboxs_own",
        "test_a_password_never_shows_in_a_repr_or_in_an_error",
    ),
    "Where sudo cannot work, the answer says so once, and the policy names its rule": (
        "test_an_image_without_sudo_says_so_once_and_runs_commands_as_ever",
        "test_a_sudo_that_is_another_program_by_a_link_is_left_alone",
        "test_without_a_sudo_profile_sudo_fails_by_itself_and_one_note_says_how_to_have_it",
        "test_a_sudo_profile_that_the_policy_does_not_allow_is_denied_by_the_rule_sudo",
    ),
    "Root in a sandbox holds what sudo needs and what the policy names, and has no way out of it": (
        "test_root_holds_just_what_sudo_needs_and_others_hold_nothing",
        "test_cap_add_gives_root_what_the_policy_names",
        "test_root_has_no_way_to_the_host_or_to_the_supervisor",
        "test_root_reaches_the_supervisors_socket_and_gets_nothing_without_its_token",
        "test_root_that_harms_its_sandbox_costs_that_sandbox_at_most",
        "test_no_server_tells_its_token_to_a_socket_that_root_put_in_the_supervisors_place",
        "test_no_descriptor_that_is_sent_to_the_supervisor_keeps_it_from_its_work",
        "test_a_flood_of_demands_for_the_password_delays_nobody_else",
    ),
    "Running out of memory kills the command, not the sandbox": (
        "test_running_out_of_memory_says_so_and_the_sandbox_works_on",
    ),
    "A host folder is mounted only where the policy names it, and what was checked is what is mounted": (
        "test_an_allowed_folder_is_mounted_and_can_be_written",
        "test_a_read_only_folder_and_a_single_file_are_mounted_so",
        "test_a_folder_given_as_an_engine_option_is_mounted_like_one_of_volumes",
        "test_a_link_is_mounted_as_what_it_leads_to",
        "test_a_link_that_is_exchanged_after_it_was_allowed_is_judged_again",
        "test_a_folder_exchanged_between_the_check_and_the_mount_is_not_given_to_anybody",
        "test_what_else_is_mounted_below_a_folder_does_not_come_with_it",
        "test_an_engine_on_another_machine_mounts_no_folder_of_this_one",
        "test_a_container_that_the_server_cannot_see_into_gets_no_host_folder",
    ),
    "A namespace of the host is shared only where the policy names it": (
        "test_a_namespace_that_the_policy_names_is_the_hosts",
        "test_a_sandbox_sees_no_cgroup_of_the_host",
    ),
    # --- the pool
    "Nothing reaches an engine that the policy has not authorised": (
        "test_the_policy_stands_between_every_call_and_the_engine",
    ),
    "Tasks and principals never share a sandbox, and no task's name reaches the engine": (
        "test_two_tasks_and_two_principals_never_see_each_others_files",
        "test_the_engine_sees_the_labels_and_no_task_id",
    ),
    "One creation at a time for a task and profile": (
        "test_fifty_calls_at_once_for_one_new_task_make_one_container",
        "test_a_caller_that_gives_up_while_the_sandbox_is_made_does_not_stop_the_others",
    ),
    "A dead sandbox is replaced, and the answer says what became of the files; no command runs twice": (
        "test_a_container_that_is_killed_under_a_command_is_lost_and_the_next_call_has_a_fresh_one",
        "test_a_workspace_outlives_a_dead_sandbox_while_another_one_of_the_task_holds_it",
    ),
    "A skill may have a fresh container for each call, and keep the stopped one when its task closes": (
        "test_each_call_has_a_fresh_container_and_the_same_workspace",
        "test_calls_at_the_same_time_have_a_container_each",
        "test_what_a_call_leaves_running_goes_with_its_container_and_the_terminal_keeps_the_files",
        "test_a_cancelled_call_leaves_no_container_of_its_own",
        "test_a_container_that_is_to_be_kept_is_stopped_and_there_after_its_task",
    ),
    "Changed manifests are taken up while serving, and told; a faulty change keeps the last good version": (
        "test_new_changed_and_removed_manifests_are_told_and_in_use",
        "test_a_faulty_change_keeps_the_tools_and_says_so_once_and_its_mending_is_taken",
        "test_a_sandbox_whose_profile_changed_is_replaced_at_the_next_call_and_the_answer_says_so",
    ),
    "A parameter's value is never split and never read as an option": (
        "test_no_text_that_looks_like_an_option_becomes_one",
        "test_a_pattern_that_looks_like_an_option_is_a_pattern",
    ),
    "A changed configuration kills no running call, and costs no files where it cannot be started": (
        "test_a_changed_configuration_that_cannot_be_started_costs_no_files",
        "test_a_changed_configuration_leaves_running_calls_alone",
    ),
    "A reset gives a fresh container with the same workspace": (
        "test_reset_gives_a_fresh_container_with_the_same_workspace",
        "test_a_reset_after_a_death_says_that_the_files_are_lost",
    ),
    "Nothing is left behind: no container, no volume, also without the server": (
        "test_closing_leaves_no_container_and_no_volume",
        "test_without_a_server_for_the_orphan_ttl_everything_is_killed",
        "test_a_killed_servers_sandboxes_remove_themselves",
        "test_a_paused_sandbox_is_removed_at_the_end_and_keeps_no_other_tasks_volume",
        "test_a_server_that_ends_while_a_sandbox_is_made_leaves_nothing",
    ),
}
