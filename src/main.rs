//! The `lightfi-exporter` binary: reads the arguments, runs the command, tells of its failure.

use std::{
    env,
    io::{self, Write},
    process::ExitCode,
};

use lightfi_exporter::cli::Cli;

#[tokio::main]
async fn main() -> ExitCode {
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
