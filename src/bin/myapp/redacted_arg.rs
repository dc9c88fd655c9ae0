//! Arguments that may hold a secret.

use std::ffi::OsStr;
use std::fmt::Display;
use std::marker::PhantomData;
use std::str::FromStr;

use clap::builder::TypedValueParser;
use clap::error::{Error, ErrorKind};
use clap::{Arg, Command};

/// Parses a value as `T` does. Errors do not contain the value, which clap would
/// show.
#[derive(Clone)]
pub(crate) struct Secret<T>(PhantomData<fn() -> T>);

/// Parses a secret like [`Secret`].
pub(crate) fn secret<T>() -> Secret<T> {
    Secret(PhantomData)
}

impl<T> TypedValueParser for Secret<T>
where
    T: FromStr<Err: Display> + Clone + Send + Sync + 'static,
{
    type Value = T;

    fn parse_ref(
        &self,
        command: &Command,
        argument: Option<&Arg>,
        value: &OsStr,
    ) -> Result<T, Error> {
        let parsed = match value.to_str() {
            Some(text) => text.parse().map_err(|error: T::Err| error.to_string()),
            None => Err("not UTF-8".to_owned()),
        };
        parsed.map_err(|problem| {
            let option = argument.map(Arg::to_string).unwrap_or_default();
            let text = format!("invalid value for '{option}': {problem}\n");
            Error::raw(ErrorKind::ValueValidation, text).with_cmd(command)
        })
    }
}
