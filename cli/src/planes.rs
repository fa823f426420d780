//! The long-running commands: one plane in this process.

use std::path::PathBuf;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};

use crate::admin::say;
use crate::failure::Failure;
use crate::files::{self, DataDir};
use crate::flags::{ControlFlags, Place, ProxyFlags, SharedFlags, refused};
use crate::{liveness, logging, up};

/// Starts the control plane alone
#[derive(clap::Args, Debug)]
pub(crate) struct ControlArgs {
    /// Started by `clawgate up`: ends with it
    #[arg(long, hide = true)]
    supervised: bool,
    #[command(flatten)]
    shared: SharedFlags,
    #[command(flatten)]
    control: ControlFlags,
}

/// Starts one data-plane node alone
#[derive(clap::Args, Debug)]
pub(crate) struct ProxyArgs {
    /// Started by `clawgate up`: ends with it
    #[arg(long, hide = true)]
    supervised: bool,
    #[command(flatten)]
    shared: SharedFlags,
    #[command(flatten)]
    proxy: ProxyFlags,
}

/// Brings the database's schema up to date and ends
#[derive(clap::Args, Debug)]
pub(crate) struct MigrateArgs {
    #[command(flatten)]
    shared: SharedFlags,
    #[command(flatten)]
    control: ControlFlags,
}

/// The mock vendor of `up --demo`
#[derive(clap::Args, Debug)]
pub(crate) struct MockArgs {
    #[arg(long, hide = true)]
    supervised: bool,
    #[command(flatten)]
    shared: SharedFlags,
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: std::net::SocketAddr,
}

/// `clawgate control`: runs until SIGTERM or SIGINT.
pub(crate) fn control(args: &ControlArgs, place: &Place) -> Result<(), Failure> {
    let config = args.control.resolve(&args.shared, place, args.supervised).map_err(refused)?;
    logging::start();
    if args.supervised {
        liveness::follow_supervisor()?;
    }
    let runtime = workers()?;
    let outcome = runtime.block_on(async {
        let stop = stop_signal()?;
        clawgate_control::app::run(config, stop).await.map_err(|e| Failure::Failed(format!("{e} ({})", e.code())))
    });
    // A blocking task that does not end must not hold the process.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    outcome
}

/// `clawgate proxy`: runs until SIGTERM or SIGINT, or until its successor has
/// taken over.
pub(crate) fn proxy(args: &ProxyArgs, place: &Place) -> Result<(), Failure> {
    // The allocator asks for huge pages; a node that mostly waits would hold
    // 12 MB of them for a few hundred KB of data. Refused by an old kernel,
    // this costs memory only.
    let _ = nix::sys::prctl::set_thp_disable(true);
    let config = args.proxy.resolve(&args.shared, place, args.supervised).map_err(refused)?;
    logging::start();
    let data = DataDir::at(place.data_dir.clone());
    data.prepare()?;
    let _held = up::lock_node(&data, args.proxy.upgrade, up::LOCK_WAIT)?;
    if args.supervised {
        liveness::follow_supervisor()?;
    }
    clawgate_proxy::app::run(config).map_err(|e| Failure::Failed(e.to_string()))
}

/// `clawgate migrate`.
pub(crate) fn migrate(args: &MigrateArgs, place: &Place) -> Result<(), Failure> {
    let config = args.control.resolve(&args.shared, place, false).map_err(refused)?;
    logging::start();
    let outcome = workers()?.block_on(clawgate_control::app::migrate(config));
    let report = outcome.map_err(|e| Failure::Failed(format!("{e} ({})", e.code())))?;
    say(&report.to_string())
}

/// The hidden child of `up --demo`.
pub(crate) fn mock(args: &MockArgs, place: &Place) -> Result<(), Failure> {
    if args.supervised {
        liveness::follow_supervisor()?;
    }
    workers()?.block_on(async {
        let stop = stop_signal()?;
        let doing = "starting the mock vendor";
        let listener = tokio::net::TcpListener::bind(args.listen).await.map_err(|e| Failure::failed(doing, e))?;
        let address = listener.local_addr().map_err(|e| Failure::failed(doing, e))?;
        let ledger =
            clawgate_mock::Ledger::open(&clawgate_mock::LedgerTarget::None).map_err(|e| Failure::failed(doing, e))?;
        let config = clawgate_mock::MockConfig { ledger, recordings: None, knobs: clawgate_mock::Knobs::default() };
        let file: PathBuf = DataDir::at(place.data_dir.clone()).run_file("mock.json");
        let content = serde_json::json!({ "listen": address.to_string() }).to_string();
        files::write_private(&file, content.as_bytes()).map_err(|e| Failure::failed(doing, e))?;
        clawgate_mock::serve(listener, config, stop).await.map_err(|e| Failure::failed("the mock vendor", e))
    })
}

pub(crate) fn workers() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::failed("starting the runtime", e))
}

/// Completes on SIGTERM or SIGINT; listens from the moment it is called.
pub(crate) fn stop_signal() -> Result<impl Future<Output = ()> + Send + 'static, Failure> {
    let listen = |kind| signal(kind).map_err(|e| Failure::failed("listening for signals", e));
    let mut term = listen(SignalKind::terminate())?;
    let mut int = listen(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        // A second signal ends the process at once.
        tokio::spawn(async move {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
            }
            let _ = kill(Pid::this(), Signal::SIGKILL);
        });
    })
}
