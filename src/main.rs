//! The `lightfi-exporter` binary: reads the arguments, runs the command, tells of its failure.

use std::{
    env,
    io::{self, Write},
    process::ExitCode,
};

use lightfi_exporter::cli::Cli;
use tokio::runtime::Runtime;

fn main() -> ExitCode {
    let runtime = match Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = writeln!(io::stderr(), "lightfi-exporter: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(run());
    // A look-up of a name or a file that hangs must not hold up the end.
    runtime.shutdown_background();
    code
}

async fn run() -> ExitCode {
    let cli = match Cli::parse(env::args_os()) {
        Ok(cli) => cli,
        Err(error) => {
            // Nobody is left to tell when standard output is closed.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let environment = env::vars_os()
        .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)));
    match cli.run(environment.collect()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let _ = writeln!(io::stderr(), "lightfi-exporter: {failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}
