//! The `lightfi-exporter` binary: reads the arguments, runs the command, and reports its failure.

use std::{
    env,
    io::{self, Write},
    process::ExitCode,
};

use exporter_toolkit::ListenFd;
use lightfi_exporter::cli::Cli;
use tokio::runtime::{Builder, Runtime};

/// The `nice` increment of the blocking threads, so that the runtime thread wins on a single CPU.
const WORKER_NICENESS: i32 = 10;

fn main() -> ExitCode {
    // For `--help` and `--version` clap returns an error too, which prints them and exits with 0.
    let cli = Cli::parse(env::args_os()).unwrap_or_else(|error| error.exit());
    // Must run before any thread is spawned: it removes `LISTEN_*` from the environment.
    let sockets = ListenFd::from_env();
    let result = runtime().map_err(Into::into).and_then(|runtime| {
        let result = runtime.block_on(cli.run(environment(), sockets));
        // A hanging name resolution must not delay the exit.
        runtime.shutdown_background();
        result
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let _ = writeln!(io::stderr(), "lightfi-exporter: {failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}

/// One thread serves and collects: the kernel does the sending, and rendering, compression and long decoding run on
/// blocking threads. A second runtime thread would not serve faster, and would have a heap of its own.
fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread()
        .enable_all()
        .on_thread_start(lower_thread_priority)
        .build()
}

/// Returns the variables whose names and values are valid UTF-8.
fn environment() -> Vec<(String, String)> {
    env::vars_os()
        .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

fn lower_thread_priority() {
    // On Linux this affects only the calling thread. If it is not permitted, scrapes wait some milliseconds longer.
    let _ = rustix::process::nice(WORKER_NICENESS);
}
