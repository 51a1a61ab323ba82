//! `downlink key` and `downlink token`: make and inspect credentials, for tests and small sites.

use std::{
    io::{self, Write as _},
    path::PathBuf,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, anyhow};
use clap::{Args, Subcommand};
use downlink::hub::{ClientId, Timestamp, TopicSelector};
use downlink_access::{Grant, KeyRole, Keys, Mint, Secret, inspect};

use super::{exit, output::printed};
use crate::duration::parse_time;

#[derive(Args, Debug)]
pub(super) struct KeyArguments {
    #[command(subcommand)]
    command: KeyCommand,
}

#[derive(Debug, Subcommand)]
enum KeyCommand {
    /// Make a key of 32 random bytes, and print it or write it to a new file.
    New {
        /// The file to write. Only its owner can read it. Without a file, the key is printed.
        file: Option<PathBuf>,
    },
    /// Print the id of the key in a file. Logs and `POST /revoke?key=` name a key by its id.
    Id {
        /// The file of the key.
        file: PathBuf,
        /// Print the id that the key has if the server gets it with --admin-key-file. Without this flag,
        /// print the id for --publish-key-file.
        #[arg(long)]
        admin: bool,
        /// Print the id that the key has if the server gets it with --relay-key-file.
        #[arg(long, conflicts_with = "admin")]
        relay: bool,
    },
}

#[derive(Args, Debug)]
pub(super) struct TokenArguments {
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Make a JSON Web Token (HS256) with a shared secret, and print it.
    Mint(Box<MintArguments>),
    /// Show the header and the claims of a token. The signature is not verified.
    Inspect {
        /// The token. Without it, the token is read from stdin.
        token: Option<String>,
    },
}

#[derive(Args, Debug)]
struct MintArguments {
    /// The file with the shared secret. The server has the same file in --jwt-key-file.
    #[arg(long, value_name = "FILE")]
    jwt_key_file: PathBuf,
    /// A topic or pattern that the token may subscribe to. May be given several times.
    #[arg(long, value_name = "TOPICS")]
    subscribe: Vec<String>,
    /// A topic or pattern that the token may publish to. May be given several times.
    #[arg(long, value_name = "TOPICS")]
    publish: Vec<String>,
    /// The client id of the token.
    #[arg(long, value_name = "ID")]
    client: Option<String>,
    /// The issuer (`iss`).
    #[arg(long, value_name = "TEXT")]
    issuer: Option<String>,
    /// The audience (`aud`).
    #[arg(long, value_name = "TEXT")]
    audience: Option<String>,
    /// How long the token is valid.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = parse_time)]
    lifetime: Duration,
    /// The token may issue tickets for what it may subscribe to.
    #[arg(long)]
    issue: bool,
    /// The token may do everything.
    #[arg(long)]
    admin: bool,
}

pub(super) fn key(arguments: &KeyArguments) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match &arguments.command {
        KeyCommand::New { file: None } => {
            let secret = Secret::generate()?;
            printed(writeln!(out, "{}", *secret.text()))
        }
        KeyCommand::New { file: Some(file) } => {
            let made = Secret::generate()?.create_file(file);
            made.with_context(|| format!("cannot make the key file {}", file.display()))
        }
        KeyCommand::Id { file, admin, relay } => {
            let secret = read(file)?;
            let role = match (admin, relay) {
                (true, _) => KeyRole::Admin,
                (_, true) => KeyRole::Relay,
                _ => KeyRole::Publish,
            };
            let id = Keys::new().add(role, &secret).map_err(|error| {
                exit::configuration(anyhow!(error).context(format!("{}", file.display())))
            })?;
            printed(writeln!(out, "{id}"))
        }
    }
}

fn read(file: &std::path::Path) -> anyhow::Result<Secret> {
    let secret = Secret::read(file);
    let secret = secret.with_context(|| format!("cannot use the key file {}", file.display()));
    secret.map_err(exit::configuration)
}

pub(super) fn token(arguments: &TokenArguments) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match &arguments.command {
        TokenCommand::Mint(mint) => {
            let token = minted(mint)?;
            printed(writeln!(out, "{token}"))
        }
        TokenCommand::Inspect { token } => {
            let text = match token {
                Some(token) => token.clone(),
                None => io::read_to_string(io::stdin()).context("cannot read stdin")?,
            };
            let (header, claims) = inspect(text.trim()).map_err(|error| {
                exit::usage(anyhow!(error).context("this is not a JSON Web Token"))
            })?;
            printed(writeln!(out, "{header}\n{claims}"))
        }
    }
}

fn minted(arguments: &MintArguments) -> anyhow::Result<String> {
    let now = Timestamp::from(SystemTime::now());
    let grant = grant(arguments).map_err(exit::usage)?.with_until(now.after(arguments.lifetime));
    let mut mint = Mint::new(&read(&arguments.jwt_key_file)?);
    if let Some(issuer) = &arguments.issuer {
        mint = mint.issuer(issuer);
    }
    if let Some(audience) = &arguments.audience {
        mint = mint.audience(audience);
    }
    mint.sign(&grant, now).context("cannot make the token")
}

fn grant(arguments: &MintArguments) -> anyhow::Result<Grant> {
    let selector = |text: &String| {
        TopicSelector::parse(text).with_context(|| format!("{text:?} is no topic or pattern"))
    };
    let mut grant = if arguments.admin { Grant::all() } else { Grant::none() };
    for text in &arguments.subscribe {
        grant = grant.with_subscribe(selector(text)?);
    }
    for text in &arguments.publish {
        grant = grant.with_publish(selector(text)?);
    }
    if let Some(client) = &arguments.client {
        let client = ClientId::new(client).with_context(|| format!("{client:?} is no client id"));
        grant = grant.with_client(client?);
    }
    let issues = arguments.issue || arguments.admin;
    Ok(grant.with_issue(issues))
}
