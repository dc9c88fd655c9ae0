//! Run of `myapp serve`.

mod args;
mod errors;
mod faults;
mod inherited;
mod reload;
mod tls;
mod values;

use std::io;
use std::time::Duration;

use futures_lite::{StreamExt as _, future};
use myapp::error_chain::ErrorChain;
use myapp::internals::{nofile, race};
use myapp::limits::shutdown;
use myapp::net::address::Address;
use myapp::serve::{Config, Health, InheritedSocket, Server, ServerStats, Summary};
use smol::Timer;
use tracing::{info, warn};

use crate::commands::serve::errors::start_error;
use crate::commands::serve::reload::{reload_on_signal, warn_of_expiry};
use crate::exit_code::{CommandError, ExitCode};
use crate::output::log::Log;
use crate::output::serve_events::Events;
use crate::output::stderr;
use crate::signals::{Ending, ReloadSignal};
use crate::systemd::{self, PassedSocket};

pub(crate) use args::Options;

/// Time limit for writes to stdout once a signal has been received.
const STDOUT_TIMEOUT: Duration = Duration::from_secs(1);

/// Descriptors of the process, arranged before the log and the runtime open theirs.
pub(crate) struct Setup {
    sockets: io::Result<Vec<PassedSocket>>,
    unused_closed: io::Result<()>,
    limit_raised: io::Result<()>,
}

/// Takes over the passed sockets, closes all other inherited descriptors and raises the limit.
pub(crate) fn set_up(options: &Options) -> Setup {
    let sockets = systemd::sockets();
    Setup {
        unused_closed: match &sockets {
            Ok(sockets) => inherited::close_unused(sockets),
            // The program ends soon.
            Err(_) => Ok(()),
        },
        sockets,
        limit_raised: options.raise_fd_limit(),
    }
}

pub(crate) fn run(options: Options, setup: Setup, log: &Log) -> Result<ExitCode, CommandError> {
    let sockets = setup.sockets.map_err(|error| {
        let error = anyhow::Error::new(error).context("inherit the sockets of LISTEN_FDS");
        CommandError::new(ExitCode::Usage, error)
    })?;
    let config = options.to_config(&sockets)?;
    if let Err(error) = setup.unused_closed {
        warn!(error = %ErrorChain(&error), "cannot close inherited descriptors");
    }
    if let Err(error) = setup.limit_raised {
        warn!(error = %ErrorChain(&error), "cannot raise the limit of open files");
    }
    let fds_per_worker = nofile::FDS_PER_WORKER + options.addresses.len().max(1);
    let available = nofile::available_after(config.threads.get() * fds_per_worker);
    if let Some(requested) = config.max_connections
        && requested > available
    {
        warn!(%requested, %available, "the limit of open files is lower than --max-connections");
    }
    if let Some(faults) = &config.fault_injection
        && options.faults.are_random()
    {
        info!(seed = faults.seed, "random faults; repeat them with --seed");
    }
    myapp::runtime::block_on(serve(&options, sockets, config, log))
}

async fn serve(
    options: &Options,
    sockets: Vec<PassedSocket>,
    config: Config,
    log: &Log,
) -> Result<ExitCode, CommandError> {
    let mut ending = Ending::catch_beside_reload()?;
    let reload_signal = ReloadSignal::catch()?;
    let server = bind(options, sockets, config).await?;
    let events = Events { json: options.json };
    let Some(signal_received) = announce(&server, events, &mut ending).await? else {
        return Ok(ExitCode::Success);
    };
    systemd::notify_ready();
    let stats = server.stats();
    // Before the server runs: the first interval includes its first messages.
    let before = stats.summary();
    let reload = reload_on_signal(reload_signal, log, server.tls().cloned());
    let watchdog = feed_watchdog(server.health());
    let (trigger, shutdown) = shutdown::channel();
    let running = async {
        server.run(shutdown.wait()).await;
    };
    let signals = async {
        if !signal_received {
            ending.next().await;
        }
        info!(
            active = stats.summary().active,
            delay = options.shutdown_delay.as_secs_f64(),
            "shutting down; a second signal exits immediately"
        );
        trigger.trigger();
        systemd::notify_stopping();
        ending.next().await;
    };
    let end = async {
        future::or(running, signals).await;
        Ok(())
    };
    let report = report_stats(options.stats, &stats, before, events);
    future::or(end, future::or(report, future::or(reload, watchdog))).await?;
    let summary = stats.summary();
    match race(Timer::after(STDOUT_TIMEOUT), events.summary(&summary)).await {
        Ok(result) => result?,
        Err(_) => warn!("timeout while writing the summary to stdout"),
    }
    Ok(ExitCode::Success)
}

/// Binds the server and reports on its certificate.
async fn bind(
    options: &Options,
    sockets: Vec<PassedSocket>,
    config: Config,
) -> Result<Server, CommandError> {
    let addresses = match options.addresses.as_slice() {
        [] if sockets.is_empty() => vec![Address::loopback(8888)],
        addresses => addresses.to_vec(),
    };
    let sockets = sockets.into_iter().map(|passed| InheritedSocket {
        socket: passed.socket,
        tls: passed.is_tls,
    });
    let server = Server::from_sockets(sockets.collect(), &addresses, config)
        .await
        .map_err(start_error)?;
    if options.tls.tls_self_signed
        && let Some(fingerprint) = server.fingerprint()
    {
        stderr::write(&format!("certificate SHA-256: {fingerprint}\n"));
    }
    if let Some(tls) = server.tls() {
        warn_of_expiry(tls);
    }
    Ok(server)
}

/// Prints the addresses, and returns whether a signal was received meanwhile: clients in the
/// backlog are served all the same. Returns `None` if stdout still blocks after the signal.
async fn announce(
    server: &Server,
    events: Events,
    ending: &mut Ending,
) -> Result<Option<bool>, CommandError> {
    let mut signal_received = false;
    let printed = async {
        events
            .listening(server.local_addrs(), server.metrics_addr())
            .await
            .map(Some)
    };
    let timeout = async {
        ending.next().await;
        signal_received = true;
        Timer::after(STDOUT_TIMEOUT).await;
        Ok(None)
    };
    let printed = future::or(printed, timeout).await?;
    Ok(printed.map(|()| signal_received))
}

/// Notifies the service manager while the workers make progress. Never returns.
async fn feed_watchdog<T>(health: Health) -> T {
    let Some(interval) = systemd::watchdog_interval() else {
        return future::pending().await;
    };
    loop {
        health.wait_for_progress().await;
        systemd::notify_watchdog();
        Timer::after(interval).await;
    }
}

/// Reports the statistics at this interval until stdout is closed; never without an interval.
async fn report_stats(
    interval: Option<Duration>,
    stats: &ServerStats,
    mut last: Summary,
    events: Events,
) -> Result<(), CommandError> {
    let Some(interval) = interval else {
        return future::pending().await;
    };
    let mut ticks = Timer::interval(interval);
    while ticks.next().await.is_some() {
        let now = stats.summary();
        events.stats(&last, &now).await?;
        last = now;
        // A very short interval must not starve the shutdown.
        future::yield_now().await;
    }
    Ok(())
}
