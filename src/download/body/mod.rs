//! Response bodies: copying, decoding and throttling.

pub(crate) mod copy;
pub(crate) mod decode;
pub(crate) mod hash;
pub(crate) mod pipe;
pub(crate) mod source;
pub(crate) mod throttle;
