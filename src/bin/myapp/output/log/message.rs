//! Format of log lines that appear beside other messages on stderr: like these, without a time.

use std::fmt;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::{Format, Full, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::output::style::{Role, paint};

/// Line with the level as a word: `warning: retrying: … url=… wait=…`.
pub(super) struct MessageFormat(Format<Full, ()>);

impl Default for MessageFormat {
    fn default() -> Self {
        let format = Format::default().without_time();
        Self(format.with_level(false).with_target(false))
    }
}

impl<S, N> FormatEvent<S, N> for MessageFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let level = match *event.metadata().level() {
            Level::ERROR => paint(Role::Error, "myapp:"),
            Level::WARN => paint(Role::Warning, "warning:"),
            Level::INFO => "note:".to_owned(),
            Level::DEBUG => "debug:".to_owned(),
            Level::TRACE => "trace:".to_owned(),
        };
        write!(writer, "{level} ")?;
        self.0.format_event(context, writer, event)
    }
}
