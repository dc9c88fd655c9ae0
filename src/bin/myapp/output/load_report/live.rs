//! Progress line of a running load on a terminal.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use myapp::echo::{LoadConfig, RunLimit};
use myapp::measure::live::LiveStats;
use myapp::measure::timeline::Bucket;
use myapp::units::Elapsed;

use super::format::{number, round};

/// Time between updates of the line.
const UPDATE_INTERVAL: Duration = Duration::from_secs(1);

/// Progress line, erased on drop.
#[derive(Debug)]
pub(crate) struct ProgressLine {
    end: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl ProgressLine {
    /// Draws the line on `screen`, if that is visible.
    pub(crate) fn start(screen: &MultiProgress, config: &LoadConfig, live: &LiveStats) -> Self {
        if screen.is_hidden() {
            return Self {
                end: None,
                thread: None,
            };
        }
        let (end, ended) = sync_channel(0);
        let config = config.clone();
        let live = live.clone();
        let style = ProgressStyle::with_template("{wide_msg}");
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = screen.add(ProgressBar::no_length().with_style(style));
        // A separate thread, because a slow terminal must not delay the load.
        let thread = thread::spawn(move || draw(&bar, &config, &live, &ended));
        Self {
            end: Some(end),
            thread: Some(thread),
        }
    }
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        self.end = None;
        if let Some(thread) = self.thread.take() {
            // The panic hook has already reported a panic.
            let _ = thread.join();
        }
    }
}

fn draw(bar: &ProgressBar, config: &LoadConfig, live: &LiveStats, ended: &Receiver<()>) {
    let start = Instant::now();
    let mut last = start;
    let mut failed = 0;
    while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(UPDATE_INTERVAL) {
        let now = Instant::now();
        let bucket = live.drain();
        failed += bucket.failed;
        bar.set_message(line(config, now - start, &bucket, now - last, failed));
        bar.tick();
        last = now;
    }
    bar.finish_and_clear();
}

/// Formats the line after `elapsed`, with the statistics of the last `span`.
fn line(
    config: &LoadConfig,
    elapsed: Duration,
    bucket: &Bucket,
    span: Duration,
    failed: u64,
) -> String {
    let seconds = |time: Duration| round(Elapsed(Duration::from_secs(time.as_secs())));
    if elapsed < config.warmup {
        return format!(
            "warming up: {} of {}",
            seconds(elapsed),
            round(Elapsed(config.warmup))
        );
    }
    let time = match config.limit {
        RunLimit::Duration(time) => {
            format!(
                "{} of {}",
                seconds(elapsed - config.warmup),
                round(Elapsed(time))
            )
        }
        _ => seconds(elapsed),
    };
    let rate = number(bucket.count() as f64 / span.as_secs_f64());
    let mut text = format!("{time}: {rate} messages per second");
    for (name, share) in [("p50", 0.5), ("p99", 0.99), ("max", 1.0)] {
        if let Some(time) = bucket.quantile(share) {
            text += &format!(", {name} {}", round(Elapsed(time)));
        }
    }
    if failed > 0 {
        text += &format!(", {failed} failed");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    use indicatif::{InMemoryTerm, ProgressDrawTarget};

    const SECOND: Duration = Duration::from_secs(1);

    #[track_caller]
    fn assert_line(limit: RunLimit, warmup: u64, bucket: &Bucket, failed: u64, text: &str) {
        let warmup = Duration::from_secs(warmup);
        let config = LoadConfig {
            limit,
            warmup,
            ..LoadConfig::default()
        };
        assert_eq!(
            line(&config, 4 * SECOND + SECOND / 3, bucket, SECOND / 2, failed),
            text
        );
    }

    #[test]
    fn line_is_erased_on_drop() {
        let terminal = InMemoryTerm::new(5, 60);
        let target = ProgressDrawTarget::term_like(Box::new(terminal.clone()));
        let screen = MultiProgress::with_draw_target(target);
        let line = ProgressLine::start(&screen, &LoadConfig::default(), &LiveStats::default());
        while terminal.contents().is_empty() {
            thread::sleep(Duration::from_millis(20));
        }
        assert!(
            terminal
                .contents()
                .starts_with("1 s of 10 s: 0 messages per second")
        );
        drop(line);
        assert_eq!(terminal.contents(), "");
    }

    #[test]
    fn line_has_the_statistics_since_the_last_update() {
        let none = Bucket::default();
        let mut bucket = Bucket::default();
        (1..=100).for_each(|n| bucket.answered(Duration::from_millis(n)));
        let stats = "200 messages per second, p50 49.3 ms, p99 98.6 ms, max 98.6 ms";
        let ten = RunLimit::Duration(10 * SECOND);
        assert_line(ten, 0, &bucket, 0, &format!("4 s of 10 s: {stats}"));
        assert_line(
            ten,
            2,
            &bucket,
            3,
            &format!("2 s of 10 s: {stats}, 3 failed"),
        );
        assert_line(
            RunLimit::Messages(7),
            0,
            &bucket,
            0,
            &format!("4 s: {stats}"),
        );
        assert_line(ten, 5, &none, 0, "warming up: 4 s of 5 s");
    }
}
