//! A failure of each system call on the output files, at each of its positions.

use crate::download::faults::inject_faults;

#[test]
#[ignore = "soak: strace, one run per system call and error"]
fn each_failed_system_call_gives_no_wrong_file() {
    let injected = inject_faults(usize::MAX);
    assert!(injected >= 1000, "only {injected} faults");
}
