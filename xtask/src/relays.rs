//! Runs the files of `deploy/relays`: one upstream and two relays behind a real HAProxy, on addresses
//! of this machine. Each server is killed while readers are connected and events are published.
//!
//! Each reader has to print each event once and in order.

use crate::browser;
use crate::setup::Readiness;
use crate::steps::Outcome;
use crate::trial::{self, NODES, Trial};
use crate::workspace::Workspace;

/// The step of `ci`.
pub(crate) fn check(workspace: &Workspace) -> anyhow::Result<Outcome> {
    if let Readiness::Missing(why) = trial::tools() {
        return Ok(Outcome::Skipped(why));
    }
    browser::build(workspace)?;
    let mut trial = prepare(workspace)?;
    for (name, _) in NODES {
        trial.start(name)?;
    }
    trial.await_ready()?;
    trial.start_proxy_and_readers()?;
    trial.publish(1)?;
    trial.await_event(1)?;
    // Kills the relays first, and then the upstream.
    for (event, (name, _)) in (2..).step_by(2).zip(NODES.iter().rev()) {
        trial.kill(name)?;
        // If the upstream is away, the relay holds this publish until the upstream is back.
        let publishing = trial.publishing(event)?;
        trial.start(name)?;
        trial::finish(publishing)?;
        trial.await_event(event)?;
        trial.await_ready()?;
        trial.publish(event + 1)?;
        trial.await_event(event + 1)?;
    }
    Ok(Outcome::Passed)
}

/// Writes the keys and the settings. The first server is the upstream.
fn prepare(workspace: &Workspace) -> anyhow::Result<Trial> {
    let trial = Trial::new(workspace, "relays")?;
    for key in ["publish.key", "ticket.key", "relay.key", "admin.key"] {
        trial.run(&["key", "new", key])?;
    }
    for node in NODES {
        let file = if node.0 == "a" { "upstream.toml" } else { "relay.toml" };
        trial.write_node(node, &trial.localized(file)?)?;
    }
    trial.write_proxy()?;
    Ok(trial)
}
