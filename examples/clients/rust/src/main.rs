//! A Jobledger client to copy from: an owner of jobs, a worker, and an operator.
//!
//! ```sh
//! cargo build --locked
//! target/debug/jobs create|get|list|watch|output|work|complete|limit --server HOST:PORT …
//! ```
//!
//! It prints one JSON object a line. The commands, their options and what they print:
//! tests/polyglot/README.md.

mod connect;
mod failure;
mod limit;
mod owner;
mod print;
mod watch;
mod worker;

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use tonic::transport::Endpoint;

use connect::Client;

/// The messages and clients that build.rs generates.
mod pb {
    tonic::include_proto!("jobledger.v1");
}

#[derive(Parser)]
#[command(about = "An owner of jobs, a worker, and an operator")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Create(owner::Create),
    Get(owner::Get),
    List(owner::List),
    Watch(watch::Watch),
    Output(watch::Output),
    Work(worker::Work),
    Complete(worker::Complete),
    Limit(limit::Limit),
}

#[derive(Args)]
struct Service {
    /// HOST:PORT of the service
    #[arg(long, value_name = "HOST:PORT", value_parser = connect::endpoint)]
    server: Endpoint,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments = Arguments::parse(); // Exits with 2.
    let done = match arguments.command {
        Command::Create(options) => owner::create(options).await,
        Command::Get(options) => owner::get(options).await,
        Command::List(options) => owner::list(options).await,
        Command::Watch(options) => watch::watch(options).await,
        Command::Output(options) => watch::output(options).await,
        Command::Work(options) => worker::work(options).await,
        Command::Complete(options) => worker::complete(options).await,
        Command::Limit(options) => limit::set(options).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(status) => {
            print::print(failure::as_json(&status));
            ExitCode::from(1)
        }
    }
}

impl Service {
    fn client(&self) -> Client {
        Client::new(&self.server)
    }
}
