//! The `smalti` command line: parse, call the library, report.
//!
//! Data on stdout, everything else on stderr. Exit codes: 0 done, 1 failed, 2 used wrongly.

mod arguments;
mod commands;
mod device;
mod hints;
mod interrupt;
mod terminal;

use std::process::ExitCode;

use clap::Parser;

use arguments::{Arguments, Command};
use terminal::Terminal;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut terminal = Terminal::new(arguments.quiet, interrupt::install());
    match run(arguments, &mut terminal) {
        Ok(code) => code,
        Err(error) => {
            terminal.error(&error);
            ExitCode::from(hints::exit_code(&error))
        }
    }
}

fn run(arguments: Arguments, terminal: &mut Terminal) -> anyhow::Result<ExitCode> {
    let device = &arguments.device;
    match arguments.command {
        Command::Demo(options) => commands::demo::run(&options, device, terminal),
        Command::Train(options) => commands::train::run(&options, device, terminal),
        Command::Compare(options) => commands::compare::run(&options, device, terminal),
        Command::Encode(options) => commands::encode::run(&options, device, terminal),
        Command::Decode(options) => commands::decode::run(&options, device, terminal),
        Command::Evaluate(options) => commands::evaluate::run(&options, device, terminal),
        Command::Generate(options) => commands::generate::run(&options, device, terminal),
        Command::Distance(options) => commands::distance::run(&options, device, terminal),
        Command::Divergence(options) => commands::divergence::run(&options, device, terminal),
        Command::Convert(options) => commands::convert::run(&options, device, terminal),
        Command::Import(options) => commands::import::run(&options, terminal),
        Command::Inspect(options) => commands::inspect::run(&options, terminal),
        Command::Completions(options) => commands::completions::run(&options, terminal),
    }
}
