//! End-to-end tests: `rc` against a running rcd, as an ordinary user.
//!
//! `cargo xtask test` prepares the place and runs this; by itself it only says so. Each test has a
//! daemon with directories of its own and ends everything that it started. `rcd serve` without
//! systemd is enough for most; what units promise is tested under a real `systemd --user`.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test prints, and a panic is how it fails"
)]

mod bad_input;
mod crash;
mod exec;
mod files;
mod images;
mod lifecycle;
mod logs;
mod restart;
mod run;
mod support;
mod terminal;
mod units;

use std::process::ExitCode;

use rcd_tests::{Environment, harness};

/// Rows of [`TESTS`]: `module: test, test; …`. A test that is forgotten here is dead code, which
/// the lints refuse.
macro_rules! tests {
    ($($module:ident: $($name:ident $($long:literal)?),+ $(,)?;)+) => {
        &[$($(harness::Test {
            name: concat!(stringify!($module), "::", stringify!($name)),
            long: !matches!(concat!($($long)?).as_bytes(), b""),
            run: $module::$name,
        }),+),+]
    };
}

const TESTS: &[harness::Test] = tests! {
    run: passes_output_and_exit_code, exit_codes_are_dockers, a_signal_is_128_and_its_number,
        stdin_reaches_the_program, environment_workdir_and_hostname, users_by_name_and_number,
        entrypoint_and_command, groups_of_the_image_apply, removed_containers_leave_nothing,
        streams_stay_apart, sixteen_at_once, fifty_run_side_by_side, much_output_arrives_whole;
    files: bind_mounts_show_host_files, a_read_only_bind_refuses_writes,
        a_read_only_root_refuses_writes, changes_survive_a_restart_of_the_container,
        etc_files_are_made, host_paths_are_hidden, proc_and_sys_are_masked,
        network_none_has_loopback_only, network_host_has_the_hosts, setuid_programs_work;
    terminal: a_shell_has_job_control, size_follows_the_terminal, detach_keys_leave_it_running,
        interrupt_goes_to_the_foreground, other_detach_keys;
    exec: runs_in_the_container, exit_codes_and_errors, sees_the_containers_processes,
        takes_stdin, has_a_terminal, ends_with_the_container;
    lifecycle: stop_asks_then_kills, the_stop_signal_is_the_containers, kill_sends_any_signal,
        start_again_keeps_its_files, start_attached_passes_the_exit_code, wait_answers_at_the_end,
        remove_needs_force_while_running, names_and_prefixes, ps_shows_what_there_is,
        inspect_has_dockers_shape, labels_are_kept, attach_sees_what_follows, a_client_interrupted,
        many_are_listed_newest_first;
    logs: both_streams_and_tail, follow_ends_with_the_container, follow_loses_no_line_at_restart,
        follow_loses_no_line_at_kill, writers_do_not_notice_restarts;
    images: pull_and_run, pull_again_is_quick_and_harmless, layers_and_whiteouts,
        pull_is_interrupted_and_resumed, pull_does_not_delay_a_start, run_pulls_what_is_missing,
        import_a_tar, import_from_stdin, remove_an_image, digests_name_images;
    restart: containers_survive_a_restart, containers_survive_a_kill, exit_codes_survive,
        an_attached_client_resumes, a_terminal_survives, auto_remove_survives,
        stopped_containers_are_still_there, killed_at_random_moments,
        killed_at_random_moments_for_long "long";
    crash: every_step_in_the_source_is_walked, containers_survive_every_step,
        removals_survive_every_step, images_survive_every_step,
        a_killed_holder_takes_its_containers_along, random_moments_and_many_clients,
        random_moments_for_long "long";
    units: the_first_command_starts_rcd, stopping_rcd_leaves_containers,
        stopping_the_holder_stops_containers, a_killed_daemon_is_back_at_once,
        a_killed_holder_is_replaced, the_watchdog_is_fed;
    bad_input: command_not_found, command_not_executable, missing_working_directory, unknown_user,
        missing_bind_source, two_of_one_name, image_not_found, registry_down, no_such_container,
        flags_that_are_not_there_yet, hostile_archives, registry_that_cuts_the_transfer,
        registry_that_lies, garbage_on_the_socket, data_directory_that_cannot_be_one, bad_configuration;
};

fn main() -> ExitCode {
    let Some(environment) = Environment::from_env() else {
        println!("end-to-end tests need a place of their own; run: cargo xtask test");
        return ExitCode::SUCCESS;
    };
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let long = arguments.iter().any(|argument| argument == "--long");
    let filter = arguments.iter().find(|argument| !argument.starts_with('-'));
    let jobs = std::env::var("RCD_TEST_JOBS")
        .ok()
        .and_then(|jobs| jobs.parse().ok());
    let jobs = jobs.or_else(|| std::thread::available_parallelism().ok().map(Into::into));
    let tally = harness::run(
        &environment,
        TESTS,
        filter.map(String::as_str),
        long,
        jobs.unwrap_or(2),
    );
    let verdict = if tally.failed == 0 { "ok" } else { "FAILED" };
    println!(
        "test result: {verdict}. {} passed; {} failed; {} ignored",
        tally.passed, tally.failed, tally.skipped
    );
    ExitCode::from(u8::from(tally.failed > 0))
}
