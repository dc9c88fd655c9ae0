//! Owner, mode, ACL and extended attributes of the old file, for the new one.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{File, Metadata, Permissions};
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use rustix::buffer::spare_capacity;
use rustix::fs::{Gid, Uid, XattrFlags, fchown, fgetxattr, fremovexattr, fsetxattr};
use rustix::io::Errno;

use crate::escape::Escaped;

/// Maximum length of a list of attribute names and of a value (linux/limits.h).
const MAX_XATTR_LEN: usize = 64 << 10;

/// Access ACL as an attribute.
const ACL: &str = "system.posix_acl_access";

/// Attributes that belong to the old content. The kernel removes the first one at each write.
const CONTENT_XATTRS: [&str; 3] = ["security.capability", "security.ima", "security.evm"];

const SET_USER_ID: u32 = 0o4000;
const SET_GROUP_ID: u32 = 0o2000;
const GROUP_BITS: u32 = 0o070;
const OTHER_BITS: u32 = 0o007;

/// Attribute of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Attribute {
    /// The group.
    Group,
    /// The permission bits.
    Mode,
    /// The access control list.
    Acl,
    /// An extended attribute.
    Extended(OsString),
}

impl fmt::Display for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Group => f.write_str("the group"),
            Self::Mode => f.write_str("the mode"),
            Self::Acl => f.write_str("the ACL"),
            Self::Extended(name) => {
                write!(f, "the attribute {}", Escaped(name.as_bytes()))
            }
        }
    }
}

/// Attribute of an old file that a new one could not be given.
#[derive(Debug, thiserror::Error)]
#[error("keep {attribute}")]
pub(crate) struct UnkeptAttribute {
    /// The attribute.
    pub attribute: Attribute,
    /// The cause.
    pub source: io::Error,
}

impl UnkeptAttribute {
    /// Returns whether the file system has no such attribute or does not permit changing it, so
    /// that no program could keep it.
    pub(crate) fn is_unsupported(&self) -> bool {
        self.attribute == Attribute::Mode
    }
}

/// Result of copying the attributes.
pub(super) struct Kept {
    pub(super) mode: u32,
    pub(super) unkept: Vec<UnkeptAttribute>,
}

/// Returns the mode if it has a bit that writing may remove.
pub(super) fn with_special_bits(mode: u32) -> Option<u32> {
    (mode & (SET_USER_ID | SET_GROUP_ID) != 0).then_some(mode)
}

/// Gives `new`, a file of this user, the attributes of the file at `path`.
pub(super) fn copy(path: &Path, old: &Metadata, new: &File) -> io::Result<Kept> {
    let mut unkept = Vec::new();
    let mode = copy_owner(old, new, &mut unkept)?;
    let has_group = unkept.is_empty();
    // A directory with a default ACL gives it to each new file.
    let has_acl = xattr(path, ACL).is_ok();
    if !has_acl {
        let _ = fremovexattr(new, ACL);
    }
    let mut keep = |attribute, result: io::Result<()>| {
        if let Err(source) = result {
            unkept.push(UnkeptAttribute { attribute, source });
        }
    };
    keep(
        Attribute::Mode,
        new.set_permissions(Permissions::from_mode(mode)),
    );
    if has_acl {
        // Its entries would give the rights of the old group to another one.
        let copied = if has_group {
            copy_xattr(path, ACL, new)
        } else {
            Err(Errno::PERM.into())
        };
        keep(Attribute::Acl, copied);
    }
    for name in xattr_names(path) {
        keep(
            Attribute::Extended(name.clone()),
            copy_xattr(path, &name, new),
        );
    }
    Ok(Kept { mode, unkept })
}

/// Gives the file the owner of the old one, or else its group. Returns the mode with the rights
/// that this owner and group may have.
fn copy_owner(old: &Metadata, new: &File, unkept: &mut Vec<UnkeptAttribute>) -> io::Result<u32> {
    let mut mode = old.mode() & 0o7777;
    let created = new.metadata()?;
    let owner = (created.uid() != old.uid()).then(|| Uid::from_raw(old.uid()));
    let group = (created.gid() != old.gid()).then(|| Gid::from_raw(old.gid()));
    if (owner.is_none() && group.is_none()) || fchown(new, owner, group).is_ok() {
        return Ok(mode);
    }
    if owner.is_some() {
        mode &= !SET_USER_ID;
    }
    if group.is_some()
        && let Err(source) = fchown(new, None, group)
    {
        mode &= !SET_GROUP_ID;
        mode &= !GROUP_BITS | ((mode & OTHER_BITS) << 3);
        unkept.push(UnkeptAttribute {
            attribute: Attribute::Group,
            source: source.into(),
        });
    }
    Ok(mode)
}

/// Returns the names of the extended attributes, except for those that are handled apart. A file
/// system without attributes has none.
fn xattr_names(path: &Path) -> Vec<OsString> {
    let mut list = Vec::with_capacity(MAX_XATTR_LEN);
    if rustix::fs::llistxattr(path, spare_capacity(&mut list)).is_err() {
        return Vec::new();
    }
    list.split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| OsString::from_vec(name.to_vec()))
        .filter(|name| name != ACL && !CONTENT_XATTRS.iter().any(|content| name == content))
        .collect()
}

fn xattr(path: &Path, name: impl AsRef<OsStr>) -> rustix::io::Result<Vec<u8>> {
    let mut value = Vec::with_capacity(MAX_XATTR_LEN);
    rustix::fs::lgetxattr(path, name.as_ref(), spare_capacity(&mut value))?;
    Ok(value)
}

/// Copies an attribute unless the new file has the same value, as a security label may.
fn copy_xattr(path: &Path, name: impl AsRef<OsStr>, new: &File) -> io::Result<()> {
    let name = name.as_ref();
    let value = match xattr(path, name) {
        Err(Errno::NODATA) => return Ok(()),
        value => value?,
    };
    let mut present = Vec::with_capacity(MAX_XATTR_LEN);
    let found = fgetxattr(new, name, spare_capacity(&mut present));
    if found.is_ok() && present == value {
        return Ok(());
    }
    Ok(fsetxattr(new, name, &value, XattrFlags::empty())?)
}
