//! A worker thread of a server.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_lite::future;
use smol::LocalExecutor;
use tracing::error;

use crate::error_chain::ErrorChain;
use crate::limits::semaphore::Semaphore;
use crate::limits::shutdown::{self, Shutdown};
use crate::limits::timeout::race;
use crate::net::listener::accept::AsyncListener;
use crate::net::udp::{BoundUdp, UdpServerSocket};
use crate::runtime::{Timer, mark_all_readable, run_tasks};
use crate::serve::acceptor::Acceptor;
use crate::serve::access::AccessControl;
use crate::serve::admission::Admission;
use crate::serve::config::Config;
use crate::serve::context::WorkerContext;
use crate::serve::fault::handle::Faults;
use crate::serve::handler::Handler;
use crate::serve::health::ProbeResponder;
use crate::serve::hooks::Hooks;
use crate::serve::listeners::{BoundListener, WorkerSockets};
use crate::serve::stats::{ServerStats, Traffic};
use crate::serve::udp::UdpResponder;
use crate::serve::udp::loop_guard::LoopGuard;

/// Bounds of the interval between two searches for idle connections.
const MIN_SWEEP_INTERVAL: Duration = Duration::from_millis(10);
const MAX_SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// The sockets, configuration and shared state of one worker thread.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) sockets: WorkerSockets,
    pub(super) config: Config,
    pub(super) stats: Arc<ServerStats>,
    pub(super) traffic: Arc<Traffic>,
    pub(super) access: Arc<AccessControl>,
    pub(super) loop_guard: Arc<LoopGuard>,
    pub(super) permits: Semaphore,
    pub(super) faults: Option<Faults>,
    pub(super) hooks: Arc<Hooks>,
    pub(super) responder: ProbeResponder,
    pub(super) shutdown: Shutdown,
}

impl Worker {
    /// Serves until the shutdown, then drains.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future aborts all connections.
    pub(super) async fn run(self) {
        let Self {
            sockets,
            config,
            stats,
            traffic,
            access,
            loop_guard,
            permits,
            faults,
            hooks,
            responder,
            shutdown,
        } = self;
        let handler = hooks.handler.get().cloned();
        let mut context = WorkerContext::new(&config, stats, traffic, access, permits, faults);
        context.observer = hooks.observer.get().cloned();
        let context = Rc::new(context);
        let executor = Rc::new(LocalExecutor::new());
        let (drain_trigger, draining) = shutdown::channel();
        for listener in sockets.listeners {
            spawn_acceptor(&executor, listener, handler.clone(), &context, &draining);
        }
        for socket in sockets.datagrams {
            spawn_responder(&executor, socket, &context, &loop_guard, &draining);
        }
        let sweeper = config
            .idle_timeout
            .map(|timeout| executor.spawn(sweep_idle(Rc::clone(&context), timeout)));
        // A task has to wait for the shutdown, or the executor would not wake up.
        let waiting = shutdown.clone();
        executor.spawn(async move { waiting.wait().await }).detach();
        let probes = responder.clone();
        let answer_probes = executor.spawn(async move { probes.run().await });
        run_tasks(&executor, || shutdown.is_shutdown()).await;
        // From here on without a task: the drain ends when there are none.
        drop(answer_probes);
        drop(sweeper);
        // Input that has arrived is served, even if the reactor has not reported it yet.
        mark_all_readable();
        context.connections.drain();
        drain_trigger.trigger();
        // Connections that are open after the timeout are aborted when the executor is dropped.
        let drained = race(
            Timer::after(config.drain_timeout),
            run_tasks(&executor, || executor.is_empty()),
        );
        let answer_probes = async {
            responder.run().await;
            future::pending().await
        };
        let _ = future::or(drained, answer_probes).await;
    }
}

fn spawn_acceptor(
    executor: &Rc<LocalExecutor<'static>>,
    bound: BoundListener,
    handler: Option<Handler>,
    context: &Rc<WorkerContext>,
    draining: &Shutdown,
) {
    let address = bound.listener.local_addr().clone();
    match AsyncListener::new(bound.listener) {
        Ok(incoming) => {
            let acceptor = Acceptor {
                incoming,
                admission: Admission {
                    tls: bound.tls,
                    handler,
                    context: Rc::clone(context),
                    executor: Rc::downgrade(executor),
                    draining: draining.clone(),
                },
            };
            executor.spawn(acceptor.run()).detach();
        }
        Err(error) => error!(%address, error = %ErrorChain(&error), "cannot poll listener"),
    }
}

fn spawn_responder(
    executor: &LocalExecutor<'static>,
    bound: BoundUdp,
    context: &Rc<WorkerContext>,
    loop_guard: &Arc<LoopGuard>,
    draining: &Shutdown,
) {
    let address = bound.local_addr();
    match UdpServerSocket::new(bound) {
        Ok(socket) => {
            let context = Rc::clone(context);
            let loop_guard = Arc::clone(loop_guard);
            let responder = UdpResponder::new(socket, context, loop_guard, draining.clone());
            executor.spawn(responder.run()).detach();
        }
        Err(error) => error!(%address, error = %ErrorChain(&error), "cannot poll UDP socket"),
    }
}

/// Closes connections that have been idle for `timeout`, at most a quarter of it late. One timer
/// serves all connections, so a message only has to record the current tick. Scanning 10,000
/// connections eight times per second takes a thousandth of a core.
async fn sweep_idle(context: Rc<WorkerContext>, timeout: Duration) {
    let interval = (timeout / 8).clamp(MIN_SWEEP_INTERVAL, MAX_SWEEP_INTERVAL);
    // Limits the number of ticks to what the table's 16-bit counter can distinguish.
    let interval = interval.max(timeout / 10_000);
    let ticks = timeout.as_nanos().div_ceil(interval.as_nanos()) + 1;
    let ticks = u16::try_from(ticks).unwrap_or(u16::MAX);
    loop {
        Timer::after(interval).await;
        context.connections.tick(ticks);
    }
}
