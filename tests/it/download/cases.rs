//! What `myapp download` promises for each way in which a server or its surroundings misbehave,
//! and the tests that hold it to that.

use std::fs;
use std::path::Path;

/// A case, the exit codes that it may end with, and its tests as `file::function`, below `tests/it`
/// or `src`.
type Case = (&'static str, &'static [u8], &'static [&'static str]);

const CASES: &[Case] = &[
    (
        "a length, chunks with trailers, an end by closing, nothing at all: saved, by a rename",
        &[0],
        &[
            "bodies::every_framing_is_understood",
            "bodies::a_file_of_any_size_is_saved_whole",
            "outputs::while_a_file_comes_it_has_another_name",
        ],
    ),
    (
        "a body that is always cut: what came stays, with its state",
        &[4],
        &[
            "bodies::a_body_that_is_cut_is_never_taken_for_a_file",
            "resume::a_later_run_goes_on_where_the_first_one_broke",
        ],
    ),
    (
        "a body that is cut once: it goes on there, hardly a byte is sent twice",
        &[0],
        &[
            "resume::a_cut_file_goes_on_where_it_broke",
            "resume::without_a_version_the_end_of_what_is_here_is_asked_for_again_and_compared",
        ],
    ),
    (
        "no last chunk, a chunk size that is none: never a file",
        &[4, 7],
        &[
            "bodies::a_body_that_is_cut_is_never_taken_for_a_file",
            "bodies::what_is_no_http_is_refused_at_a_limit",
        ],
    ),
    (
        "more bytes than the length: they harm nobody",
        &[0],
        &["bodies::surplus_bytes_harm_neither_the_file_nor_the_next"],
    ),
    (
        "silence, a drip: given up, gone on with or kept",
        &[0, 10],
        &[
            "servers::a_server_that_falls_silent_is_given_up",
            "retry::a_silent_server_is_asked_again",
            "retry::a_body_that_drips_is_given_up_and_gone_on_with",
            "retry::what_takes_too_long_is_given_up_and_its_part_stays",
        ],
    ),
    (
        "killed halfway: -c goes on",
        &[0],
        &["resume::killed_at_any_moment_it_goes_on_and_the_file_is_exact"],
    ),
    (
        "another file on the server, also of the same length: the new one, and a word about it",
        &[0],
        &["resume::a_file_that_changed_on_the_server_is_fetched_anew_and_never_spliced"],
    ),
    (
        "a 206 that does not fit: started over",
        &[0],
        &[
            "resume::an_answer_that_does_not_fit_starts_the_file_over",
            "resume::a_206_without_a_range_of_its_own_starts_the_file_over",
        ],
    ),
    (
        "a 206 that is shorter than asked: gone on from there",
        &[0],
        &["resume::a_server_that_sends_a_little_at_a_time_is_asked_until_all_is_there"],
    ),
    (
        "a 200 to a range: from the start, the part stays until it is overtaken",
        &[0],
        &[
            "resume::a_server_without_ranges_sends_all_and_the_part_stays_until_it_is_overtaken",
            "resume::a_server_that_misreads_if_range_is_asked_without_it",
        ],
    ),
    (
        "416 to a whole part: done; to one that is too long: started over",
        &[0],
        &["resume::a_part_that_is_whole_already_is_done_and_one_that_is_too_long_is_not"],
    ),
    (
        "two processes, one URL, one folder: never mixed",
        &[0],
        &[
            "names::two_programs_at_one_name_do_not_mix",
            "resume::two_programs_at_one_part_do_not_mix",
        ],
    ),
    (
        "404, 401, always 503: no page is saved, an end after as many tries as asked for",
        &[6, 8],
        &[
            "servers::the_page_of_an_error_is_never_saved",
            "retry::eight_files_of_a_server_that_is_down_end_after_three_tries_each",
        ],
    ),
    (
        "429 with Retry-After: waited for, for the whole host and for no other",
        &[0],
        &["retry::a_server_that_wants_to_be_left_alone_is_while_others_go_on"],
    ),
    (
        "one of three fails: two are saved, the third is named",
        &[4, 8],
        &[
            "many::one_that_fails_does_not_stop_the_others_wherever_it_stands",
            "many::of_several_failures_the_lowest_code_wins",
        ],
    ),
    (
        "redirects in a loop, too many, to what is not http: refused",
        &[7],
        &[
            "redirects::twenty_redirects_are_followed_and_no_more",
            "redirects::a_redirect_that_leads_nowhere_or_astray_is_refused",
        ],
    ),
    (
        "a redirect to another origin: no credentials",
        &[0],
        &["redirects::credentials_do_not_go_to_another_origin"],
    ),
    (
        "names that servers choose: safe, inside the folder",
        &[0],
        &[
            "files::a_name_that_a_server_chose_is_made_safe",
            "files::a_long_name_that_a_server_chose_is_cut_and_a_taken_one_numbered",
        ],
    ),
    (
        "the file is there: numbered, skipped, replaced when whole, fetched if another",
        &[0, 4],
        &[
            "names::whatever_has_the_name_keeps_it",
            "files::a_file_that_is_there_is_skipped_where_that_is_wanted",
            "files::a_file_is_replaced_in_one_step_and_only_by_a_whole_one",
            "files::a_file_is_fetched_again_only_if_the_server_has_another",
        ],
    ),
    (
        "symlinks in place of file and part, a folder in place of the file: untouched, refused",
        &[0, 3],
        &["files::what_a_symlink_leads_to_is_never_touched", "files::a_folder_is_never_replaced"],
    ),
    (
        "a full disk, a folder that cannot be written to: told, before anything is asked for",
        &[3],
        &[
            "outputs::a_full_disk_is_told_before_the_body_where_its_length_is_known",
            "outputs::what_cannot_be_written_is_not_asked_for",
        ],
    ),
    (
        "SIGINT at half of four files: parts and states stay",
        &[130, 143],
        &["signals::a_signal_ends_it_soon_and_leaves_parts_to_go_on_with"],
    ),
    (
        "checksums, right, wrong, in lists of all forms, missing",
        &[0, 9],
        &[
            "checksum::a_right_checksum_of_every_kind_lets_a_file_through",
            "checksum::a_wrong_file_never_gets_its_name_and_is_asked_for_once",
            "checksum::a_list_is_read_from_a_file_or_a_url_in_all_its_forms",
            "checksum::a_name_that_a_list_does_not_have_is_not_fetched_and_the_others_are",
        ],
    ),
    (
        "a file that is too long: refused before its body, or at the limit",
        &[11],
        &["files::a_file_that_is_too_long_is_refused_before_its_body_or_cut_at_the_limit"],
    ),
    (
        "a head without end: cut at a limit",
        &[7],
        &["bodies::what_is_no_http_is_refused_at_a_limit"],
    ),
    (
        "certificates of other names and issuers: refused at once; trusted ones: good",
        &[0, 5],
        &[
            "https::a_certificate_that_is_trusted_is_good_and_any_other_is_refused",
            "https::a_certificate_for_another_name_is_refused",
        ],
    ),
    (
        "stderr is no terminal: plain lines, one a file",
        &[0],
        &["telling::without_a_terminal_each_file_has_a_plain_line"],
    ),
];

/// The text of the test `file::function`, from its attribute to its end.
fn test(named: &str) -> Option<String> {
    let (file, function) = named.split_once("::")?;
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/it/download/{file}.rs"));
    let text = fs::read_to_string(path).ok()?;
    let at = text.find(&format!("\nfn {function}() {{\n"))?;
    let start = text[..at].rfind("#[test]")?;
    let is_attribute = text[start..at].lines().all(|line| line.starts_with("#["));
    let length = text[at..].find("\n}\n")?;
    is_attribute.then(|| text[start..at + length].to_owned())
}

#[test]
fn every_case_has_a_test() {
    let mut complaints = Vec::new();
    for (case, codes, tests) in CASES {
        if tests.is_empty() || codes.is_empty() {
            complaints.push(format!("no test for: {case}"));
        }
        let missing = tests.iter().filter(|named| test(named).is_none());
        complaints.extend(missing.map(|named| format!("no test {named}, for: {case}")));
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[test]
fn a_test_that_is_not_there_is_missed() {
    assert!(test("cases::every_case_has_a_test").is_some());
    assert!(test("cases::test").is_none());
    assert!(test("nowhere::every_case_has_a_test").is_none());
}
