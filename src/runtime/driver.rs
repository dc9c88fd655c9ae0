//! The reactor and timers of worker threads on this platform.

#[cfg(target_os = "linux")]
pub(crate) use super::epoll::{
    Driver, Socket, Unparker, busy_poll_time, mark_all_readable, yield_to_reactor,
};
#[cfg(not(target_os = "linux"))]
pub(crate) use super::portable::{
    Driver, Socket, Timer, Unparker, busy_poll_time, mark_all_readable, yield_to_reactor,
};
#[cfg(target_os = "linux")]
pub(crate) use super::timers::Timer;
