//! Checks the files for operators in `deploy` with the tools that read them: systemd, Prometheus and
//! Kubernetes. The steps with several servers are in `relays` and `cluster`.
//!
//! The proxies and the snippets of `deploy` have their own steps. No Docker engine runs on the
//! machines of the tests, so the image is not built here. The step `dist` runs the same program in
//! an empty folder instead.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::cluster;
use crate::command::{self, command};
use crate::relays;
use crate::setup::{self, Readiness};
use crate::steps::{Outcome, Step};
use crate::workspace::Workspace;

/// The maximum of the exposure that systemd computes for the unit, in tenths: 2.0. systemd calls
/// everything below 2.0 safe.
const EXPOSURE_MAX: &str = "20";

/// The version of Kubernetes whose schemas the manifest has to match. It is the oldest version with
/// the pause that the manifest uses before the server ends (`preStop` with `sleep`).
const KUBERNETES: &str = "1.30";

/// The path of the program in the systemd unit.
const INSTALLED: &str = "/usr/local/bin/downlink";

/// The path of the NATS server in its systemd unit.
const ENGINE: &str = "/usr/local/bin/nats-server";

/// The steps of `ci`.
pub(crate) fn steps() -> Vec<Step> {
    vec![
        Step::new("systemd", systemd),
        Step::new("alerts", alerts),
        Step::new("dashboard", dashboard),
        Step::new("kubernetes", kubernetes),
        Step::new("relays", relays::check),
        Step::new("cluster", cluster::check),
    ]
}

/// A new folder below the target directory for the files of a step.
fn scratch(workspace: &Workspace, name: &str) -> anyhow::Result<PathBuf> {
    let folder = workspace.target.join("deploy").join(name);
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
    }
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    Ok(folder)
}

fn read(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| path.display().to_string())
}

/// systemd accepts the units without a warning, also with the parts for several machines, and the
/// services are well protected.
fn systemd(workspace: &Workspace) -> anyhow::Result<Outcome> {
    if let Readiness::Missing(why) = setup::program("systemd-analyze", "systemd") {
        return Ok(Outcome::Skipped(why));
    }
    let folder = scratch(workspace, "systemd")?;
    for name in ["downlink.socket", "downlink.service"] {
        let unit = read(&workspace.root.join("deploy/systemd").join(name))?;
        // systemd reports a program that does not exist, and this step installs none.
        fs::write(folder.join(name), unit.replace(INSTALLED, "/bin/true"))?;
    }
    let analyze = |words: &[&str]| command(&folder, "systemd-analyze", words);
    let engine = read(&workspace.root.join("deploy/cluster/nats-server.service"))?;
    fs::write(folder.join("nats-server.service"), engine.replace(ENGINE, "/bin/true"))?;
    let verify = || {
        let units = [
            "verify",
            "--man=no",
            "./downlink.socket",
            "./downlink.service",
            "./nats-server.service",
        ];
        let said = command::output(analyze(&units).arg("--recursive-errors=no"))?;
        ensure!(said.is_empty(), "systemd has remarks about the units:\n{said}");
        Ok(())
    };
    verify()?;
    for several in ["relays", "cluster"] {
        for (unit, part) in
            [("downlink.socket", "socket.conf"), ("downlink.service", "service.conf")]
        {
            let parts = folder.join(format!("{unit}.d"));
            fs::create_dir_all(&parts).with_context(|| parts.display().to_string())?;
            let text = read(&workspace.root.join("deploy").join(several).join(part))?;
            fs::write(parts.join("several.conf"), text)?;
        }
        verify()?;
    }
    let threshold = format!("--threshold={EXPOSURE_MAX}");
    for unit in ["./downlink.service", "./nats-server.service"] {
        let words = ["security", "--offline=true", "--no-pager", &threshold, unit];
        let table = command::output(&mut analyze(&words))?;
        println!("{}", table.lines().last().unwrap_or_default());
    }
    Ok(Outcome::Passed)
}

/// Prometheus accepts its files. Each alert has a test, and in each test only the expected alerts
/// fire.
fn alerts(workspace: &Workspace) -> anyhow::Result<Outcome> {
    if let Readiness::Missing(why) = setup::promtool() {
        return Ok(Outcome::Skipped(why));
    }
    let folder = workspace.root.join("deploy/prometheus");
    let promtool = |words: &[&str]| command::run(&mut command(&folder, "promtool", words));
    promtool(&["check", "config", "--syntax-only", "prometheus.yml"])?;
    promtool(&["check", "rules", "alerts.yml"])?;
    promtool(&["test", "rules", "alerts_test.yml"])?;
    let tests = read(&folder.join("alerts_test.yml"))?;
    let alerts = read(&folder.join("alerts.yml"))?;
    for alert in alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        ensure!(tests.contains(alert), "alerts_test.yml has no test of {alert}");
    }
    Ok(Outcome::Passed)
}

/// The dashboard is JSON without overlapping panels, and Prometheus accepts its queries.
fn dashboard(workspace: &Workspace) -> anyhow::Result<Outcome> {
    if let Readiness::Missing(why) = setup::promtool() {
        return Ok(Outcome::Skipped(why));
    }
    let text = read(&workspace.root.join("deploy/grafana/downlink.json"))?;
    let dashboard: Value = serde_json::from_str(&text).context("deploy/grafana/downlink.json")?;
    let queries = queries(&dashboard)?;
    let rules = scratch(workspace, "dashboard")?.join("queries.json");
    fs::write(&rules, recorded(&queries).to_string())?;
    command::run(command(Path::new("/"), "promtool", &["check", "rules"]).arg(&rules))?;
    Ok(Outcome::Passed)
}

/// The queries of all panels.
///
/// # Errors
///
/// Two panels have the same id or overlap, or a panel has no query.
fn queries(dashboard: &Value) -> anyhow::Result<Vec<String>> {
    let panels = dashboard["panels"].as_array().context("the dashboard has no panels")?;
    let (mut ids, mut cells, mut queries) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
    for panel in panels {
        let title = &panel["title"];
        ensure!(ids.insert(panel["id"].as_u64()), "the id of the panel {title} is not unique");
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|name| panel["gridPos"][name].as_u64());
        let (x, y) = (x.context("no x")?, y.context("no y")?);
        let (w, h) = (w.context("no width")?, h.context("no height")?);
        ensure!(x + w <= 24, "the panel {title} is wider than the dashboard");
        for cell in (x..x + w).flat_map(|column| (y..y + h).map(move |row| (column, row))) {
            ensure!(cells.insert(cell), "the panel {title} overlaps another panel");
        }
        let targets = panel["targets"].as_array().map_or(&[][..], Vec::as_slice);
        ensure!(panel["type"] == "row" || !targets.is_empty(), "the panel {title} has no query");
        queries.extend(targets.iter().map(|t| t["expr"].as_str().unwrap_or_default().to_owned()));
    }
    Ok(queries)
}

/// A file of recording rules with these queries, because promtool checks the queries of rules.
fn recorded(queries: &[String]) -> Value {
    let expression = |query: &String| query.replace("$__rate_interval", "5m");
    let rules: Vec<Value> = { queries.iter().enumerate() }
        .map(|(n, query)| {
            serde_json::json!({ "record": format!("query_{n}"), "expr": expression(query) })
        })
        .collect();
    serde_json::json!({ "groups": [{ "name": "dashboard", "rules": rules }] })
}

/// The manifests match the schemas of Kubernetes.
fn kubernetes(workspace: &Workspace) -> anyhow::Result<Outcome> {
    let program = match setup::kubectl_validate(workspace) {
        Ok(program) => program,
        Err(why) => return Ok(Outcome::Skipped(why)),
    };
    let folder = workspace.root.join("deploy/kubernetes");
    let words = ["--version", KUBERNETES, "downlink.yaml", "proxy.yaml"];
    command::run(&mut command(&folder, program, &words))?;
    Ok(Outcome::Passed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn panel(id: u64, x: u64, query: &str) -> Value {
        let place = json!({ "x": x, "y": 0, "w": 12, "h": 8 });
        json!({ "id": id, "title": query, "type": "stat", "gridPos": place, "targets": [{ "expr": query }] })
    }

    fn of(panels: &[Value]) -> anyhow::Result<Vec<String>> {
        queries(&json!({ "panels": panels }))
    }

    #[test]
    fn the_queries_of_panels_side_by_side_are_returned() {
        assert_eq!(of(&[panel(1, 0, "a"), panel(2, 12, "b")]).unwrap(), ["a", "b"]);
    }

    #[test]
    fn panels_that_overlap_or_have_no_query_are_refused() {
        for panels in [
            [panel(1, 0, "a"), panel(1, 12, "b")],
            [panel(1, 0, "a"), panel(2, 11, "b")],
            [panel(1, 0, "a"), panel(2, 13, "b")],
            [panel(1, 0, "a"), json!({ "id": 2, "gridPos": panel(2, 12, "b")["gridPos"] })],
        ] {
            assert!(of(&panels).is_err(), "{panels:?}");
        }
    }

    #[test]
    fn a_query_becomes_a_rule_with_a_fixed_interval() {
        let rules = recorded(&["rate(a[$__rate_interval])".to_owned()]);
        assert_eq!(rules["groups"][0]["rules"][0]["expr"], "rate(a[5m])");
    }
}
