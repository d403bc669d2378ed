//! `starling dev`: flags and refusals. What dev mode is, is in [`crate::dev`].

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::process::ExitCode;

use clap::Args;

use super::flags::{assigned, assignment};
use super::{complain, say, serve, with_config};
use crate::app::{Extras, VERSION};
use crate::auth::{Authenticator, UnixSeconds};
use crate::config::{Config, Environment, Flag, GrpcApi, Sources};
use crate::dev::{self, Facts, Keys};

#[derive(Debug, Args)]
pub(super) struct DevFlags {
    /// Port of clients, HTTP API and demo page; 0 takes a free one
    #[arg(short, long, default_value_t = 8000)]
    port: u16,
    /// Port of the gRPC API [default: 10000; a free one if that is taken or --port is 0]
    #[arg(long)]
    grpc_port: Option<u16>,
    /// Address to listen on; only one of this machine is taken
    #[arg(short, long, default_value = "127.0.0.1")]
    address: IpAddr,
    /// Key of the server API [default: random, for this run]
    #[arg(long)]
    key: Option<String>,
    /// Secret that signs tokens [default: random, for this run]
    #[arg(long)]
    secret: Option<String>,
    /// Set one more option; may be given more than once (--set client.ping_interval=5s)
    #[arg(long, value_name = "OPTION=VALUE", value_parser = assignment)]
    set: Vec<(String, String)>,
}

/// Runs a server to try things with, on this machine only. `program` is how this program was called.
pub(super) fn run(flags: DevFlags, program: &str) -> ExitCode {
    let sources = match sources(flags) {
        Ok(sources) => sources,
        Err(problem) => return refuse(&problem),
    };
    with_config(sources, |loaded| {
        let config = &loaded.config;
        if let Err(problem) = on_this_machine(config) {
            return refuse(&format!("{problem}\nTo serve others: {program} config init config.toml"));
        }
        let facts = match facts(config, program) {
            Ok(facts) => facts,
            Err(problem) => return refuse(&problem),
        };
        let extras = Extras { demo: Some(facts.page()) };
        serve::run_with(loaded, extras, |running| say(&facts.greeting(running.external)))
    })
}

fn refuse(problem: &str) -> ExitCode {
    complain(problem);
    ExitCode::FAILURE
}

/// The options of dev mode, then those of the command line. Neither file nor variables: dev mode is the same everywhere.
fn sources(flags: DevFlags) -> Result<Sources, String> {
    let DevFlags { port, grpc_port, address, key, secret, set } = flags;
    // Another address is refused later, with the reason.
    if address.is_loopback() && port != 0 && is_taken(SocketAddr::new(address, port)) {
        return Err(format!("port {port} of {address} is taken; --port 0 takes a free one"));
    }
    let grpc_port = match grpc_port {
        Some(port) => port,
        None => choose_grpc_port(address, port).map_err(|error| format!("{address}: no free port: {error}"))?,
    };
    let own = dev::options(address, port, grpc_port, &Keys::new(secret, key));
    let own = own.into_iter().map(|(option, value)| Flag { option: option.into(), value, written: "dev mode".into() });
    Ok(Sources { file: None, environment: Environment::default(), flags: own.chain(assigned(set)).collect() })
}

/// The usual port unless it is taken or the user wants a free one anyway. The text that is printed must name the port, so
/// a free one is found before the server starts.
fn choose_grpc_port(address: IpAddr, port: u16) -> io::Result<u16> {
    let usual = SocketAddr::new(address, GrpcApi::default().port);
    if port != 0 && !is_taken(usual) {
        return Ok(usual.port());
    }
    Ok(TcpListener::bind((address, 0))?.local_addr()?.port())
}

fn is_taken(address: SocketAddr) -> bool {
    TcpListener::bind(address).is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
}

/// Refuses every address that others could reach.
fn on_this_machine(config: &Config) -> Result<(), String> {
    let Config { http_server, grpc_api, .. } = config;
    let addresses = [
        ("http_server.address", Some(&http_server.address)),
        ("http_server.internal_address", http_server.internal_port.map(|_| &http_server.internal_address)),
        ("grpc_api.address", grpc_api.enabled.then_some(&grpc_api.address)),
    ];
    for (option, address) in addresses {
        let Some(address) = address else { continue };
        let text = address.as_deref().unwrap_or("every interface");
        if text != "localhost" && !text.parse().is_ok_and(|ip: IpAddr| ip.is_loopback()) {
            return Err(format!(
                "dev mode listens on this machine only, such as on 127.0.0.1: whoever can connect may subscribe and publish \
                 to everything. {text} ({option}) can be reached by others."
            ));
        }
    }
    Ok(())
}

fn facts(config: &Config, program: &str) -> Result<Facts, String> {
    let token = Authenticator::new(&config.client)
        .and_then(|keys| keys.create_connection_token(dev::USER, None, UnixSeconds::now()))
        .map_err(|problem| problem.to_string())?;
    let api_key = config.http_api.key.as_deref().unwrap_or_default().to_owned();
    let grpc_address = config.grpc_api.address.as_deref().unwrap_or("localhost");
    let grpc = match grpc_address.contains(':') {
        true => format!("[{grpc_address}]:{}", config.grpc_api.port),
        false => format!("{grpc_address}:{}", config.grpc_api.port),
    };
    Ok(Facts { version: VERSION, program: program.to_owned(), token, api_key, grpc })
}
