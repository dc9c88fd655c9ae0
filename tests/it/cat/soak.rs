//! Long comparisons with GNU `cat`.

use super::display::compare_random_runs;

#[test]
#[ignore = "soak: 20,000 random runs"]
fn random_runs_equal_gnu_cat_for_long() {
    compare_random_runs(20_000);
}
