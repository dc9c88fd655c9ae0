//! Tests that run for minutes.

use super::lossy::run_random_loads;

#[test]
#[ignore = "soak: 2,000 random loads, about five minutes"]
fn counts_of_2000_random_loads_add_up() {
    run_random_loads(fastrand::u64(..1 << 60), 2000);
}
