//! Long tests of what a download leaves behind.

mod faults;
mod kills;
mod power_cuts;
