//! Input of a run: items, lists of items and shards of lists.

pub(crate) mod item;
mod line;
pub(crate) mod list;
pub(crate) mod shard;
