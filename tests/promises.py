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
        "test_while_the_engine_is_away_each_call_says_so_and_when_it_is_back_they_work",
        "test_a_full_disk_is_one_clear_error_and_with_room_again_the_next_call_works",
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
        "test_the_terminal_goes_on_where_it_ended_however_it_did",
        "test_neither_a_background_command_nor_one_handed_off_moves_the_terminal",
    ),
    # --- commands that take long
    "A call answers in time; the command goes on to its own timeout, and a lost answer can be fetched again": (
        "test_a_build_that_outlives_the_wait_is_handed_off_and_fetched_whole",
        "test_a_build_under_a_client_that_gives_up_is_answered_in_time_and_fetched",
        "test_a_lost_answer_can_be_fetched_again",
        "test_a_wait_of_the_calls_own_and_one_beyond_the_timeout",
        "test_a_command_that_was_handed_off_is_killed_at_its_timeout_with_all_it_started",
        "test_a_background_command_answers_at_once_and_says_what_cannot_be_started",
        "test_a_background_command_that_ends_at_once_answers_its_end_or_goes_on",
        "test_a_cancel_before_the_hand_off_kills_and_one_after_it_does_not",
        "test_the_64_that_finished_last_can_be_asked_for",
        "test_no_more_commands_run_at_once_than_the_limit_says",
        "test_standard_input_that_is_not_taken_yet_is_fed_after_the_hand_off",
        "test_a_changed_configuration_leaves_what_goes_on_alone",
        "test_a_container_for_one_call_waits_until_its_output_was_asked_for",
        "test_a_process_whose_sandbox_died_is_lost_and_not_run_again",
        "test_the_servers_end_kills_what_goes_on",
    ),
    "From a cursor no byte comes twice, none is lost, and what fell out of the spool is counted": (
        "test_fifty_processes_at_once_keep_their_output_whole_and_in_order",
        "test_polling_waits_for_what_is_new_and_gives_no_byte_twice",
        "test_a_character_that_is_not_whole_yet_waits_for_its_rest",
        "test_what_fell_out_of_the_spool_is_counted",
        "test_the_two_streams_of_a_skill_have_a_cursor_each",
        "test_any_cutting_into_pages_gives_each_byte_once",
    ),
    "The whole kept output is a resource, page by page": (
        "test_head_and_tail_of_a_long_output_name_the_resource_with_the_whole",
        "test_the_whole_output_is_a_resource_page_by_page",
        "test_bytes_that_are_no_text_are_a_blob_and_a_piece_can_be_asked_for",
    ),
    "A process can be written to, signalled, killed, and have a terminal": (
        "test_input_can_be_written_and_ended",
        "test_a_process_that_does_not_read_takes_what_fits_and_the_answer_says_how_much",
        "test_a_signal_reaches_the_process_and_its_name_is_checked",
        "test_kill_ends_everything_that_a_process_started_and_counts_it",
        "test_a_chat_with_python_through_a_terminal",
        "test_a_terminal_has_its_size_and_takes_another",
        "test_colours_are_kept_and_left_out_on_demand",
    ),
    "A process belongs to its task: nobody else's can be seen, and closing or resetting ends it": (
        "test_another_tasks_and_another_principals_processes_do_not_exist",
        "test_closing_and_resetting_end_what_goes_on",
        "test_rules_judge_what_is_written_to_a_process",
    ),
    "A client that declares the tasks extension is answered a task that ends with the call's own answer": (
        "test_the_extension_is_declared_and_nothing_of_the_earlier_revisions_tasks_is_there",
        "test_a_command_in_the_background_is_a_task_that_ends_with_the_calls_own_answer",
        "test_a_command_that_is_still_running_after_the_wait_is_a_task",
        "test_a_skill_that_goes_on_is_a_task_and_its_failure_is_in_the_result",
        "test_a_timeout_completes_the_task_with_an_error_in_the_result",
        "test_the_end_can_be_asked_for_again_also_where_the_sandbox_was_for_this_call_alone",
        "test_a_task_whose_sandbox_dies_completes_with_an_error_and_is_not_run_again",
        "test_the_official_client_sees_a_long_command_through_as_one_call",
    ),
    "Every other client is answered `running` as ever, and has no tasks": (
        "test_a_request_that_does_not_declare_the_extension_is_answered_as_ever_and_refused_the_methods",
        "test_a_client_of_an_earlier_revision_has_no_tasks_whatever_it_declares",
        "test_only_a_client_that_declares_the_extension_may_want_to_be_told_of_tasks",
    ),
    "A task's cancel takes the one way of a kill, and what has ended stays as it ended": (
        "test_a_cancel_kills_everything_is_acknowledged_and_changes_nothing_the_second_time",
        "test_a_cancel_of_a_task_that_has_ended_leaves_its_result",
    ),
    "A task's id cannot be guessed, is its principal's own, and means one process for ever": (
        "test_an_id_that_was_not_given_out_is_unknown",
        "test_an_id_is_not_good_for_a_later_process_of_the_same_name",
        "test_another_principal_has_no_such_task",
        "test_an_id_is_good_for_the_server_that_takes_the_sandbox_up",
        "test_a_later_server_knows_a_process_by_the_same_key",
        "test_over_http_the_header_that_requests_are_routed_by_must_name_the_task",
    ),
    "Progress brings the newest lines, and a client that does not read stops nobody": (
        "test_progress_brings_the_newest_lines_at_most_ten_times_a_second",
        "test_a_client_that_does_not_read_stops_no_command",
    ),
    "A process is found again by the next server, with its output": (
        "test_a_background_process_is_found_again_with_its_output_and_goes_on",
        "test_a_process_that_ended_meanwhile_tells_how",
        "test_the_next_server_goes_on_where_the_terminal_was_and_its_processes_get_new_numbers",
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
    # --- files
    "Files are read, written, changed and listed inside the sandbox, whatever links it holds": (
        "test_files_are_written_read_changed_and_listed_as_the_sandboxs_user",
        "test_paths_start_in_the_workspace_and_the_terminals_state_is_its_own",
        "test_no_link_leads_out_of_the_sandbox",
        "test_another_tasks_files_are_not_there",
        "test_what_has_no_end_or_no_data_is_refused_at_once",
        "test_a_file_that_is_larger_than_the_sandboxs_memory_is_read_in_its_middle",
        "test_a_file_tool_is_no_way_to_run_something",
        "test_rules_judge_the_one_absolute_spelling_of_a_path",
        "test_a_reply_of_any_bytes_ends_in_an_answer_or_one_of_three_errors",
        "test_a_reply_that_says_too_much_is_bounded",
    ),
    "A file is replaced as a whole or not at all, and no edit is lost": (
        "test_protected_files_and_folders_stay_as_they_are",
        "test_a_full_workspace_keeps_the_old_file_and_leaves_nothing_behind",
        "test_a_cancelled_edit_is_killed_and_changes_nothing",
        "test_a_sandbox_that_dies_under_a_file_tool_is_said_and_the_next_call_has_a_new_one",
        "test_a_replaced_sandbox_keeps_what_the_file_tools_wrote",
        "test_many_edits_at_once_lose_none",
        "test_an_ambiguous_edit_is_refused_with_its_places",
    ),
    "A picture is shown as a picture, and the workspace's files are resources": (
        "test_a_picture_is_answered_whole",
        "test_a_picture_that_a_skill_wrote_is_shown_as_one",
        "test_a_client_of_the_real_server_works_on_files",
        "test_files_are_resources_of_their_kind",
        "test_a_resource_that_is_not_there_or_not_the_tasks_is_not_found",
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
        "test_a_generated_password_is_each_sandboxs_own",
        "test_a_password_never_shows_in_a_repr_or_in_an_error",
    ),
    "Where sudo cannot work, the answer says so once, and the policy names its rule": (
        "test_an_image_without_sudo_says_so_once_and_runs_commands_as_ever",
        "test_without_a_sudo_profile_sudo_fails_by_itself_and_one_note_says_how_to_have_it",
        "test_a_sudo_profile_that_the_policy_does_not_allow_is_denied_by_the_rule_sudo",
    ),
    "Root in a sandbox holds what sudo needs and what the policy names, and has no way out of it": (
        "test_root_holds_just_what_sudo_needs_and_others_hold_nothing",
        "test_cap_add_gives_root_what_the_policy_names",
        "test_root_has_no_way_to_the_host_or_to_the_supervisor",
        "test_root_reaches_the_supervisors_socket_and_gets_nothing_without_its_token",
        "test_root_that_harms_its_sandbox_costs_that_sandbox_at_most",
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
    "A new task gets a sandbox that is ready, fit for it and nobody else's": (
        "test_a_new_task_gets_the_warm_sandbox_and_another_one_is_made",
        "test_a_warm_sandbox_that_is_not_in_order_is_not_handed_out",
        "test_no_sandbox_is_made_ready_before_the_first_call",
        "test_a_new_task_takes_a_warm_sandbox_and_no_other_task_ever_gets_it",
        "test_a_task_that_has_files_takes_no_warm_sandbox",
    ),
    "The bounds hold, what is in use is never closed for another, and who waits is served by turns or told why": (
        "test_the_least_recently_used_idle_sandbox_makes_room_and_its_task_is_told",
        "test_with_all_places_in_use_a_call_waits_and_then_says_who_has_them",
        "test_a_herd_of_calls_for_few_new_tasks_makes_one_container_each_and_leaves_none",
        "test_a_sandbox_with_a_call_or_a_living_process_is_never_closed_for_another",
        "test_a_freed_place_goes_to_the_principal_that_holds_the_fewest_and_then_to_who_came_first",
    ),
    "An idle sandbox is closed; idle counts from the end of the last call or process": (
        "test_an_idle_sandbox_is_closed_but_not_one_with_a_living_process",
        "test_idle_is_counted_from_the_end_of_the_last_call_or_process",
    ),
    "Persistent files outlive sandboxes and servers, and the sandbox's and the host's user can both use them": (
        "test_persistent_files_outlive_sandboxes_and_servers_in_a_volume_of_their_own",
        "test_persistent_files_in_a_host_folder_belong_to_the_sandbox_and_can_be_used_by_the_host",
        "test_a_root_for_files_that_is_not_ones_own_is_refused",
    ),
    "What a killed server leaves is taken up by the next one of its deployment, or removes itself": (
        "test_the_next_server_finds_a_killed_servers_sandbox_with_files_folder_and_processes",
        "test_a_restarted_server_finds_a_background_process_with_its_output_and_ends_it",
        "test_a_changed_profile_ends_nothing_that_an_earlier_server_left_running",
        "test_a_killed_servers_sandboxes_and_volumes_are_gone_without_any_next_server",
        "test_sandboxes_are_kept_at_a_clean_end_where_the_configuration_says_so",
        "test_a_changed_profile_replaces_the_sandbox_that_is_taken_up_and_keeps_its_files",
        "test_what_no_task_had_is_removed_and_what_shares_files_is_taken_up_together",
        "test_where_no_state_can_be_written_everything_but_the_handing_over_works",
    ),
    "The command line lists and closes any server's sandboxes; only a purge deletes persistent files": (
        "test_ps_shows_whose_each_sandbox_is_and_what_it_does",
        "test_a_sandbox_without_a_server_is_shown_as_an_orphan",
        "test_rm_ends_a_running_servers_sandbox_and_the_server_heals",
        "test_rm_of_nothing_says_so_and_fails",
        "test_only_purge_deletes_persistent_files",
    ),
    "Servers leave each other's sandboxes alone, and one that is only looked at makes and touches nothing": (
        "test_two_servers_of_one_deployment_leave_each_others_sandboxes_alone",
        "test_a_server_that_is_only_looked_at_makes_and_touches_nothing",
        "test_what_other_servers_read_holds_no_token_and_is_for_its_user_alone",
    ),
    "A dead sandbox is replaced, and the answer says what became of the files; no command runs twice": (
        "test_a_container_that_is_killed_under_a_command_is_lost_and_the_next_call_has_a_fresh_one",
        "test_a_workspace_outlives_a_dead_sandbox_while_another_one_of_the_task_holds_it",
        "test_a_paused_sandbox_loses_its_command_and_the_next_one_has_the_files",
        "test_a_container_removed_from_outside_loses_its_command_and_the_next_one_works",
        "test_an_engine_restarted_under_a_command_loses_it_and_what_is_on_disk_stays",
        "test_an_engine_that_hangs_loses_the_command_and_when_it_goes_on_the_files_are_there",
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
