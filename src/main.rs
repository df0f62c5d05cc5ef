//! The `lightfi-exporter` binary: reads the arguments, runs the command, tells of its failure.

use std::{
    env,
    io::{self, Write},
    process::ExitCode,
};

use lightfi_exporter::cli::Cli;
use listenfd::ListenFd;
use tokio::runtime::Builder;

/// By how much the others are nicer than the thread that serves, where there is not a CPU for each.
const NICER: i32 = 10;

fn main() -> ExitCode {
    let cli = match Cli::parse(env::args_os()) {
        Ok(cli) => cli,
        Err(error) => {
            // Nobody is left to tell when standard output is closed.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    // Before there are threads: it takes its words out of the environment.
    let sockets = ListenFd::from_env();
    let text = |text: std::ffi::OsString| text.into_string().ok();
    let environment = env::vars_os().filter_map(|(key, value)| Some((text(key)?, text(value)?)));
    // One thread serves and asks: sending is the kernel's work, and rendering, packing and long decoding are done by others.
    // A second one would serve no faster, and keep a heap of its own.
    let mut builder = Builder::new_current_thread();
    let runtime = builder.enable_all().on_thread_start(give_way).build();
    let result = runtime.map_err(Into::into).and_then(|runtime| {
        let result = runtime.block_on(cli.run(environment.collect(), sockets));
        // A name look-up that hangs must not hold up the exit.
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

/// Lets the thread that serves go before the one that begins here: on a single CPU a scrape would otherwise wait while
/// the next snapshot is made. What else those threads do, passwords and files, waits with that.
fn give_way() {
    // On Linux this is of the calling thread. Where it is not allowed, scrapes wait for some milliseconds more.
    let _ = rustix::process::nice(NICER);
}
