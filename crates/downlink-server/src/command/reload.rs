//! The reload of a running server: at SIGHUP, or when one of the files has changed, the server
//! reads its settings file and its key files again.
//!
//! A reload applies the settings in [`RELOADED`]. If another setting has changed, the log names it,
//! because it needs a restart. If a file cannot be used, nothing changes. A stream ends, as after a
//! revocation, if its key was removed, or if its topics were public and no longer are. Other
//! changes of the rules apply to new requests: an open stream keeps the rights with which it began.
//! New rules of retention apply to all topics at once, and end no stream. Flags and environment
//! variables are those of the start, because no signal changes them.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::bail;
use downlink::hub::Hub;
use tokio::sync::Notify;

#[cfg(unix)]
use super::supervisor::{tell_supervisor, tell_supervisor_of_reload};
use super::{
    config::{ReadServe, contradictions_of_values},
    file_watch::FileWatch,
};
use crate::{
    access::{AccessSettings, Control, KeyFiles},
    app,
    config::{Settings, Values},
    logs::LogLevel,
    values::masked,
};

/// The settings that a reload applies. A reload also reads the files that these settings name,
/// except the file of a key set, which the server reads every few minutes.
pub(super) const RELOADED: [&str; 29] = [
    "log",
    "retain-events",
    "retain-bytes",
    "retain-age",
    "retain",
    "finished-keep",
    "public",
    "publish-key-file",
    "admin-key-file",
    "relay-key-file",
    "ticket-key-file",
    "jwt-key-file",
    "jwt-public-key",
    "jwks-url",
    "jwt-issuer",
    "jwt-audience",
    "jwt-cookie",
    "token-grant",
    "token-lifetime-max",
    "cors-origin",
    "public-url",
    "host",
    "authorize-url",
    "authorize-cookie",
    "subscribed-names-per-address-max",
    "publishes-per-address",
    "publishes-per-key",
    "failures-per-address",
    "tickets-per-key",
];

/// How a server reads its settings again.
#[derive(Debug)]
pub(super) struct Reload {
    /// The words of the command line.
    arguments: Vec<OsString>,
    read: ReadServe,
    /// The settings in force.
    values: Values,
    /// The settings file.
    file: Option<PathBuf>,
}

impl Reload {
    pub(super) fn new(
        arguments: Vec<OsString>,
        read: ReadServe,
        values: Values,
        file: Option<PathBuf>,
    ) -> Self {
        Self { arguments, read, values, file }
    }

    /// The reloads of a server with these settings. `is_inherited` says whether the server has
    /// inherited its socket, so that the settings do not have its address. `made` has the key files
    /// that the server made itself. If a file changes from now on, even while the server still
    /// waits for its store, the server reloads.
    pub(super) fn of(
        self,
        settings: &Settings,
        access: AccessSettings,
        (is_inherited, made): (bool, Option<&KeyFiles>),
        log: LogLevel,
    ) -> Reloader {
        let watch = FileWatch::begin(files(self.file.as_deref(), &access, made));
        let (settings, refused) = (settings.clone(), None);
        Reloader { reload: self, settings, access, refused, is_inherited, log, watch }
    }
}

/// The task that reloads.
#[derive(Debug)]
pub(super) struct Reloader {
    reload: Reload,
    settings: Settings,
    /// The settings of access control in force.
    access: AccessSettings,
    /// The settings of access control that the last reload has refused.
    refused: Option<AccessSettings>,
    is_inherited: bool,
    log: LogLevel,
    /// Watches the files that were read last.
    watch: FileWatch,
}

impl Reloader {
    /// Reloads each time that `wanted` is notified or a file has changed, until the hub drains.
    pub(super) async fn run(
        mut self,
        wanted: Arc<Notify>,
        control: Arc<Control>,
        hub: Hub<String>,
    ) {
        loop {
            tokio::select! {
                () = wanted.notified() => {}
                () = self.watch.changed() => tracing::info!("the settings or the keys have changed"),
                () = hub.draining() => return,
            }
            #[cfg(unix)]
            tell_supervisor_of_reload();
            let (of_task, of_streams) = (Arc::clone(&control), hub.clone());
            // A read from a network drive may take long.
            let reloading = tokio::task::spawn_blocking(move || {
                self.watch = FileWatch::begin(self.files(&of_task));
                let reloaded = self.apply(&of_task, &of_streams);
                self.watch.follow(self.files(&of_task));
                (self, reloaded)
            });
            let reloaded = match reloading.await {
                Ok((reloader, reloaded)) => {
                    self = reloader;
                    reloaded
                }
                Err(error) => {
                    tracing::error!(%error, "a reload did not complete; the server needs a restart for new settings");
                    #[cfg(unix)]
                    tell_supervisor(&[sd_notify::NotifyState::Ready]);
                    return;
                }
            };
            match reloaded {
                Ok(changed) if changed.is_empty() => tracing::info!("read the key files again"),
                Ok(changed) => {
                    let changed = changed.join(", ");
                    tracing::info!("read the key files again, and applied new values of {changed}");
                }
                Err(error) => {
                    // The error may quote a setting, and may have several lines.
                    let error = masked(&format!("{error:#}"));
                    let error = error.lines().map(str::trim).filter(|line| !line.is_empty());
                    let error = error.collect::<Vec<_>>().join("; ");
                    tracing::error!("cannot reload; nothing has changed: {error}");
                }
            }
            #[cfg(unix)]
            tell_supervisor(&[sd_notify::NotifyState::Ready]);
        }
    }

    /// The files of the settings in force, and those of the refused settings, if the last reload
    /// was refused. The reason may be that one of these files does not exist yet.
    fn files(&self, control: &Control) -> Vec<PathBuf> {
        let mut all = files(self.reload.file.as_deref(), &self.access, control.key_files());
        all.extend(self.refused.iter().flat_map(|refused| files(None, refused, None)));
        all
    }

    /// Reads the settings and the key files again, and applies them. Returns the names of the
    /// settings that have changed.
    fn apply(&mut self, control: &Control, hub: &Hub<String>) -> anyhow::Result<Vec<String>> {
        let (mut new, values) = (self.reload.read)(&self.reload.arguments)?;
        if self.is_inherited {
            new.settings.listen = self.settings.listen.clone();
        }
        self.refused = Some(new.access.clone());
        let errors = contradictions_of_values(&new.settings, &new.access);
        if !errors.is_empty() {
            let errors: Vec<_> = errors.iter().map(|error| format!("{error:#}")).collect();
            bail!("{}", errors.join("; "));
        }
        let access = self.access.reloaded(new.access);
        control.reload(&self.settings, &access, hub)?;
        // The check of the settings has built a hub with these rules, so this does not fail.
        hub.set_retention(app::retention(&new.settings))?;
        if let Err(error) = self.log.set(&new.settings.log) {
            tracing::error!("the new settings apply, but not the level of the log: {error:#}");
        }
        self.access = access;
        self.refused = None;
        let mut changed = Vec::new();
        for (name, old, new) in self.reload.values.differences(&values) {
            if RELOADED.contains(&name) {
                changed.push(name.to_owned());
            } else {
                tracing::warn!(
                    "a reload does not change {name}: it is {old} until a restart, and {new} after \
                     it"
                );
            }
        }
        self.reload.values = self.reload.values.updated(&values, &RELOADED);
        Ok(changed)
    }
}

/// The settings file and the key files.
fn files(file: Option<&Path>, access: &AccessSettings, made: Option<&KeyFiles>) -> Vec<PathBuf> {
    let AccessSettings {
        publish_key_file,
        admin_key_file,
        relay_key_file,
        ticket_key_file,
        jwt_key_file,
        jwt_public_key,
        ..
    } = access;
    let given = [
        publish_key_file,
        admin_key_file,
        relay_key_file,
        ticket_key_file,
        jwt_key_file,
        jwt_public_key,
    ];
    let given = given.into_iter().flatten().map(PathBuf::as_path);
    let made = made.into_iter().flat_map(KeyFiles::made).map(|(_, file)| file);
    file.into_iter().chain(given).chain(made).map(Path::to_owned).collect()
}
