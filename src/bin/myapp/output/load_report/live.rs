//! A line on a terminal that tells how a load goes while it runs.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use myapp::echo::{Length, LoadConfig};
use myapp::measure::live::LiveStats;
use myapp::measure::timeline::Bucket;
use myapp::units::Elapsed;

use crate::output::load_report::{number, round};

/// How often the line is told anew.
const TICK: Duration = Duration::from_secs(1);

/// The line, until it is dropped; then nothing is left of it.
#[derive(Debug)]
pub(crate) struct Line {
    end: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Line {
    /// Draws the line where `screen` shows it.
    pub(crate) fn start(screen: &MultiProgress, config: &LoadConfig, live: &LiveStats) -> Self {
        if screen.is_hidden() {
            return Self {
                end: None,
                thread: None,
            };
        }
        let (end, ended) = sync_channel(0);
        let (config, live) = (config.clone(), live.clone());
        let style = ProgressStyle::with_template("{wide_msg}");
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = screen.add(ProgressBar::no_length().with_style(style));
        // A terminal that takes its time holds up nobody else.
        let thread = thread::spawn(move || draw(&bar, &config, &live, &ended));
        Self {
            end: Some(end),
            thread: Some(thread),
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.end = None;
        if let Some(thread) = self.thread.take() {
            // A panic has been told by the panic hook already.
            let _ = thread.join();
        }
    }
}

fn draw(bar: &ProgressBar, config: &LoadConfig, live: &LiveStats, ended: &Receiver<()>) {
    let start = Instant::now();
    let (mut last, mut failed) = (start, 0);
    while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(TICK) {
        let (now, slice) = (Instant::now(), live.drain());
        failed += slice.failed;
        bar.set_message(line(config, now - start, &slice, now - last, failed));
        bar.tick();
        last = now;
    }
    bar.finish_and_clear();
}

/// What is told after `elapsed` about the last `span` of it.
fn line(
    config: &LoadConfig,
    elapsed: Duration,
    slice: &Bucket,
    span: Duration,
    failed: u64,
) -> String {
    let whole = |time: Duration| round(Elapsed(Duration::from_secs(time.as_secs())));
    if elapsed < config.warmup {
        return format!(
            "warming up: {} of {}",
            whole(elapsed),
            round(Elapsed(config.warmup))
        );
    }
    let time = match config.length {
        Length::Time(time) => {
            format!(
                "{} of {}",
                whole(elapsed - config.warmup),
                round(Elapsed(time))
            )
        }
        Length::Count(_) => whole(elapsed),
    };
    let rate = number(slice.count() as f64 / span.as_secs_f64());
    let mut text = format!("{time}: {rate} messages a second");
    for (name, share) in [("p50", 0.5), ("p99", 0.99), ("max", 1.0)] {
        if let Some(time) = slice.quantile(share) {
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
    fn tells(length: Length, warmup: u64, slice: &Bucket, failed: u64, text: &str) {
        let warmup = Duration::from_secs(warmup);
        let config = LoadConfig {
            length,
            warmup,
            ..LoadConfig::default()
        };
        assert_eq!(
            line(&config, 4 * SECOND + SECOND / 3, slice, SECOND / 2, failed),
            text
        );
    }

    #[test]
    fn nothing_is_left_of_the_line_at_its_end() {
        let terminal = InMemoryTerm::new(5, 60);
        let target = ProgressDrawTarget::term_like(Box::new(terminal.clone()));
        let screen = MultiProgress::with_draw_target(target);
        let line = Line::start(&screen, &LoadConfig::default(), &LiveStats::default());
        while terminal.contents().is_empty() {
            thread::sleep(Duration::from_millis(20));
        }
        assert!(
            terminal
                .contents()
                .starts_with("1 s of 10 s: 0 messages a second")
        );
        drop(line);
        assert_eq!(terminal.contents(), "");
    }

    #[test]
    fn the_line_tells_what_happened_since_the_last_one() {
        let (mut slice, none) = (Bucket::default(), Bucket::default());
        (1..=100).for_each(|n| slice.answered(Duration::from_millis(n)));
        let figures = "200 messages a second, p50 49.3 ms, p99 98.6 ms, max 98.6 ms";
        let ten = Length::Time(10 * SECOND);
        tells(ten, 0, &slice, 0, &format!("4 s of 10 s: {figures}"));
        tells(
            ten,
            2,
            &slice,
            3,
            &format!("2 s of 10 s: {figures}, 3 failed"),
        );
        tells(Length::Count(7), 0, &slice, 0, &format!("4 s: {figures}"));
        tells(ten, 5, &none, 0, "warming up: 4 s of 5 s");
    }
}
