"""Which lane a test is in, and what a test of the fast lane may not do.

A lane is a marker, and every test has exactly one. The folder decides; in the folders of the fast
lane the two lists below name the tests that start processes, and those that take long. The fast
lane has every unit of logic: no broker, no child process, and no test that takes several tenths of
a second of CPU time. `make test-fast` runs it; `make test` runs all lanes.
"""

from __future__ import annotations

import multiprocessing.util
import sys
from typing import Any, Final

import pytest

LANES: Final = {
    "tests/architecture/": "architecture",
    "tests/chaos/": "chaos",
    "tests/containers/": "containers",
    "tests/integration/": "broker",
    "tests/l1/": "providers",
    "tests/property/": "fast",
    "tests/security/": "security",
    "tests/simulation/": "simulation",
    "tests/unit/": "fast",
    "tests/vectors/": "fast",
}

MARKERS: Final = {
    "architecture": "rules of the source tree and of the documents",
    "broker": "starts a message broker and real instances",
    "chaos": "mixed faults in a real system",
    "containers": "starts a container engine",
    "fast": "logic alone: no broker, no child process",
    "heavy": "logic alone, but slow",
    "processes": "starts child processes, but no system",
    "providers": "root keys, at servers that stand in for their providers",
    "security": "memory and messages as an attacker sees them",
    "simulation": "the kill switch in virtual time",
}

PROCESSES: Final = (
    "tests/unit/test_bench_peers.py",
    "tests/unit/test_bench_quick.py",
    "tests/unit/test_bus_remembering.py::test_a_file_that_could_not_be_finished_leaves_the_one_before_and_no_other",
    "tests/unit/test_bus_versions.py",
    "tests/unit/test_keymem_slots.py::test_a_forked_child_cannot_use_it",
    "tests/unit/test_cli_endings.py",
    "tests/unit/unsealer/test_listen.py",
    "tests/unit/test_cli_main.py::test_no_help_loads_what_only_work_needs",
    "tests/unit/test_cli_main.py::test_the_command_is_what_the_package_installs",
    "tests/unit/test_cli_links.py::test_nothing_is_linked_when_nothing_is_granted",
    "tests/unit/test_cli_links.py::test_on_a_terminal_a_key_is_tried_again_when_what_is_missing_was_granted",
    "tests/unit/test_cli_links.py::test_on_a_terminal_whoever_gives_nothing_is_walked_through_it",
    "tests/unit/test_cli_audit.py::test_what_a_journal_holds_is_json_without_a_terminal",
    "tests/unit/test_cli_paths.py::test_a_path_that_cannot_be_used_is_named",
    "tests/unit/test_cli_streams.py",
    "tests/unit/test_client_seen.py::test_of_processes_that_write_at_once_the_highest_stays",
    "tests/unit/test_client_use.py::test_after_a_fork_neither_client_is_usable",
    "tests/unit/test_client_use.py::test_without_a_logging_set_up_nothing_is_printed",
    "tests/unit/test_crypto_placing.py::test_a_killed_process_leaves_nothing_for_long",
    "tests/unit/test_crypto_placing.py::test_what_a_running_process_writes_is_not_swept",
    "tests/unit/test_crypto_secretfile.py::test_what_could_not_be_written_is_removed",
    "tests/unit/test_crypto_secretfile.py::test_who_is_killed_while_a_secret_is_written_leaves_none",
    "tests/unit/test_dev_binary.py",
    "tests/unit/test_dev_brokers.py",
    "tests/unit/test_dev_clusters.py",
    "tests/unit/test_dev_deploy_brokers.py",
    "tests/unit/test_dev_health.py",
    "tests/unit/test_dev_containers.py::test_the_service_takes_its_configuration",
    "tests/unit/test_dev_lost.py",
    "tests/unit/test_dev_processes.py",
    "tests/unit/test_dev_rootkeys.py",
    "tests/unit/test_dev_state.py::test_services_end_before_brokers_and_the_backbone_last",
    "tests/unit/test_dev_topology.py",
    "tests/unit/test_dist.py::test_a_dependency_that_is_not_declared_is_named",
    "tests/unit/test_dist.py::test_a_module_that_cannot_be_imported_is_a_failure",
    "tests/unit/test_engine.py",
    "tests/unit/test_l1_guard.py",
    "tests/unit/test_l1_uri.py::test_parsing_imports_no_provider_and_no_sdk",
    "tests/unit/test_release.py",
    "tests/unit/test_setup.py",
    "tests/unit/test_tools.py",
    "tests/unit/unsealer/test_silence.py",
)
"""Files and tests that start child processes."""

HEAVY: Final = (
    "tests/property/test_journal.py::test_a_cut_end_is_healed_and_loses_only_what_was_cut",
    "tests/property/test_journal.py::test_a_journal_is_sound_over_segments_and_restarts",
    "tests/property/test_journal.py::test_any_changed_byte_shows",
    "tests/property/test_journal.py::test_any_delivery_of_a_true_story_is_recorded_once",
    "tests/property/test_watch.py::test_nobody_serves_when_a_kill_is_said_to_be_complete",
    "tests/unit/switch/test_compacting.py",
    "tests/unit/switch/test_crowded.py",
    "tests/unit/switch/test_key_attestations.py::test_a_name_that_changes_with_every_session_unloads_nothing",
    "tests/unit/switch/test_key_attestations.py::test_attestations_are_shared_so_a_link_is_used_once_an_interval_and_region",
    "tests/unit/switch/test_key_lifts.py::test_a_hold_is_lifted_once_the_key_has_settled_and_everything_opens",
    "tests/unit/switch/test_key_lifts.py::test_a_key_that_flapped_stays_dark_for_longer_also_after_a_restart",
    "tests/unit/switch/test_key_lifts.py::test_a_key_that_flaps_stays_dark_until_it_settles",
    "tests/unit/switch/test_key_lifts.py::test_a_refusal_after_the_lift_kills_again",
    "tests/unit/switch/test_key_lifts.py::test_an_operators_hold_outlasts_the_lift_of_the_keys_own",
    "tests/unit/switch/test_key_lifts.py::test_two_endpoints_that_disagree_stay_dark_until_both_agree",
    "tests/unit/switch/test_listing.py::test_a_hold_is_looked_up_by_its_id_however_many_there_are",
    "tests/unit/switch/test_listing.py::test_a_list_comes_in_pages_that_a_message_can_carry",
    "tests/unit/switch/test_listing.py::test_an_id_that_is_short_finds_one_or_says_that_there_are_several",
    "tests/unit/switch/test_looking.py::test_a_broker_that_is_away_ends_no_looking",
    "tests/unit/switch/test_looking.py::test_a_hold_that_the_stream_lost_behind_a_running_core_is_written_again",
    "tests/unit/switch/test_looking.py::test_a_look_costs_the_same_however_many_holds_are_known",
    "tests/unit/switch/test_looking.py::test_a_stream_with_fewer_messages_than_are_known_is_looked_through_at_once",
    "tests/unit/switch/test_looking.py::test_an_older_state_in_its_place_is_replaced_by_what_is_known",
    "tests/unit/switch/test_looking.py::test_another_leader_is_looked_through_at_once",
    "tests/unit/switch/test_overwritten.py::test_whoever_writes_over_a_hold_without_end_cannot_fill_the_record",
    "tests/unit/switch/test_catching_up.py::test_a_restart_loop_neither_serves_nor_keeps_a_kill_from_being_complete",
    "tests/unit/switch/test_regions.py::test_a_region_that_promises_more_for_ever_gets_no_peer_lease",
    "tests/unit/switch/test_regions.py::test_holds_come_in_several_pages_by_cursor",
    "tests/unit/switch/test_regions.py::test_kills_that_come_all_the_time_end_no_peer_leases_of_other_tenants",
    "tests/unit/switch/test_regions.py::test_others_have_their_turn_while_thousands_of_holds_are_learned",
    "tests/unit/switch/test_regions.py::test_the_cores_of_a_region_share_their_questions",
    "tests/unit/switch/test_regions.py::test_what_both_regions_know_does_not_travel_again",
    "tests/unit/switch/test_results_attacked.py::test_a_region_that_lies_about_many_kills_keeps_nobody_from_looking",
    "tests/unit/switch/test_results_attacked.py::test_two_regions_that_conclude_at_the_same_moment_keep_one_each",
    "tests/unit/switch/test_results_stored.py::test_a_bucket_that_is_full_for_an_hour_has_the_result_when_there_is_room",
    "tests/unit/switch/test_steady.py",
    "tests/unit/test_audit_answering.py::test_a_question_is_recorded_once_and_further_ones_are_counted",
    "tests/unit/test_audit_ledger.py::test_what_is_older_than_the_memory_is_a_duplicate",
    "tests/unit/test_audit_recorder.py::test_heads_come_with_entries_or_with_time",
    "tests/unit/test_audit_trimming_losses.py::test_a_journal_that_was_put_back_behind_a_trim_is_found_out",
    "tests/unit/test_bench_kill.py::test_rows_become_a_time_for_the_baseline_and_ratios_for_the_others",
    "tests/unit/test_bench_measure.py",
    "tests/unit/test_cli_columns.py::test_a_long_table_goes_in_batches",
    "tests/unit/test_cli_columns.py::test_any_csv_keeps_its_values",
    "tests/unit/test_cli_hints.py::test_what_a_region_refuses_comes_with_a_hint_for_the_command",
    "tests/unit/test_cli_layout.py::test_no_word_is_cut_and_no_line_too_long",
    "tests/unit/test_cli_table_bytes.py::test_any_json_comes_back",
    "tests/unit/test_cli_tables.py::test_what_waits_for_a_field_has_a_bound",
    "tests/unit/test_control_incarnations.py::test_the_incarnations_of_a_region_are_bounded",
    "tests/unit/test_core_admin_copies.py::test_nobody_pushes_out_what_another_operator_asked",
    "tests/unit/test_core_opening.py::test_a_failure_that_nobody_waits_for_any_more_is_silent",
    "tests/unit/test_core_relinking.py::test_whatever_dies_in_between_one_of_the_two_opens_it",
    "tests/unit/test_gateway_engine.py::test_a_thousand_versions_in_one_batch_do_not_take_up_the_core",
    "tests/unit/test_gateway_keyblock.py::test_many_blocks_lie_in_few_pieces_of_memory",
    "tests/unit/test_gateway_opening.py::test_whatever_is_wanted_stays_within_the_bounds",
    "tests/unit/test_gateway_pool.py::test_the_busier_a_pool_is_the_more_keys_a_refill_brings_up_to_a_request",
    "tests/unit/test_trust_evidence.py::test_no_byte_of_a_statement_can_be_changed",
)
"""Files and tests that take several tenths of a second of CPU time."""

LISTED: Final = dict.fromkeys(HEAVY, "heavy") | dict.fromkeys(PROCESSES, "processes")
"""The lane of each file and test that one of the two lists names."""

STARTS: Final = frozenset(
    {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.exec", "os.system"}
)
"""Audit events of a new process."""


def lane_of(nodeid: str) -> str:
    """Return the lane of a test by its id; raises KeyError for a folder that has none."""
    test = nodeid.partition("[")[0]
    return LISTED.get(test) or LISTED.get(test.partition("::")[0]) or LANES[folder_of(test)]


def folder_of(test: str) -> str:
    """Return the folder that decides: the first one below ``tests``."""
    return "/".join(test.split("/")[:2]) + "/"


class Guard:
    """Fails a test of the fast lane that starts a child process, however it does."""

    def __init__(self) -> None:
        self.test: str | None = None
        """The test of the fast lane that runs now."""
        self._started = ""
        sys.addaudithook(self._heard)
        # A spawned worker of multiprocessing is the one start without an audit event.
        spawn = multiprocessing.util.spawnv_passfds

        def heard(path: Any, *arguments: Any) -> int:
            self._heard("subprocess.Popen", (path,))
            return spawn(path, *arguments)

        multiprocessing.util.spawnv_passfds = heard

    def _heard(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.test is None or event not in STARTS:
            return
        self._started = f"{event} {arguments[0]!r}" if arguments else event
        self.fail()

    def begin(self, test: str) -> None:
        """Watch this test."""
        self.test, self._started = test, ""

    def end(self) -> None:
        """Stop watching; fails once more where the test swallowed the failure."""
        self.test = None
        if self._started:
            self.fail()

    def fail(self) -> None:
        """Fail the test and say what to do."""
        pytest.fail(
            f"a test of the fast lane started a child process ({self._started}):"
            " list it in PROCESSES of tests/lanes.py",
            pytrace=False,
        )
