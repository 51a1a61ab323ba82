//! The setting `--log`: which lines are written.

use tracing_subscriber::filter::{LevelFilter, Targets};

/// The target of the lines about requests and streams.
pub(super) const ACCESS: &str = "access";

/// The targets of lines from the server's crates begin with this text.
const OWN: &str = "downlink";

/// The target of the lines of the NATS client library. When a connection ends, the library writes
/// that it cannot connect again. These lines are misleading, because the server itself connects
/// again. So they are written only if a list names the target.
const ENGINE_CLIENT: &str = "async_nats";

/// The advice for a text that is no filter.
const ADVICE: &str = "write error, warn, info, debug, trace, off, or a list of TARGET=LEVEL";

/// Checks the value of the setting.
pub(crate) fn parse_log(text: &str) -> Result<String, String> {
    targets(text).map(|_| text.to_owned()).map_err(|error| format!("{error}; {ADVICE}"))
}

/// The lines that a value of the setting allows.
///
/// A level without a target is the level of all lines. But crates that are not the server's get
/// at most `info`, because their debug lines can quote whole requests, with credentials. A list can
/// name such a crate and allow it more: `debug,h2=debug`.
pub(super) fn targets(text: &str) -> Result<Targets, ParseLogError> {
    for part in text.split(',') {
        let is_level = || part.parse::<LevelFilter>().is_ok();
        let is_pair = part.split_once('=').is_some_and(|(target, _)| is_target(target));
        if part.is_empty() || !(is_pair || is_level()) {
            return Err(ParseLogError(part.to_owned()));
        }
    }
    let mut targets: Targets = text.parse().map_err(|_| ParseLogError(text.to_owned()))?;
    if targets.iter().all(|(target, _)| target != ENGINE_CLIENT) {
        targets = targets.with_target(ENGINE_CLIENT, LevelFilter::OFF);
    }
    let default = targets.default_level().unwrap_or(LevelFilter::OFF);
    if default <= LevelFilter::INFO {
        return Ok(targets);
    }
    let named: Vec<String> = targets.iter().map(|(target, _)| target.to_owned()).collect();
    let own = [OWN, ACCESS].into_iter().filter(|own| named.iter().all(|target| target != own));
    let targets = targets.with_default(LevelFilter::INFO);
    Ok(own.fold(targets, |targets, own| targets.with_target(own, default)))
}

fn is_target(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_:-".contains(&byte))
}

/// A part of the setting that is neither a level nor a pair `TARGET=LEVEL`.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a log level")]
pub(crate) struct ParseLogError(String);

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    fn allows(text: &str, target: &str, level: Level) -> bool {
        targets(text).unwrap().would_enable(target, &level)
    }

    #[test]
    fn a_level_without_a_target_is_for_the_servers_own_lines() {
        for own in ["downlink_server::app", "downlink::hub", "access"] {
            assert!(allows("debug", own, Level::DEBUG) && !allows("info", own, Level::DEBUG));
        }
        assert!(allows("trace", "h2::server", Level::INFO));
        assert!(!allows("trace", "h2::server", Level::DEBUG));
        assert!(allows("debug,h2=debug", "h2::server", Level::DEBUG));
        assert!(!allows("warn", "h2::server", Level::INFO));
        assert!(!allows("trace", "async_nats::connector", Level::ERROR));
        assert!(allows("info,async_nats=warn", "async_nats::connector", Level::WARN));
    }

    #[test]
    fn a_list_sets_the_level_of_each_target() {
        assert!(!allows("info,access=off", "access", Level::ERROR));
        assert!(allows("info,access=off", "downlink_server::app", Level::INFO));
        assert!(!allows("debug,access=warn", "access", Level::INFO));
        assert!(!allows("debug,downlink=info", "downlink::hub", Level::DEBUG));
        assert!(!allows("access=info", "downlink::hub", Level::ERROR));
    }

    #[test]
    fn a_text_that_is_no_filter_is_refused() {
        for text in
            ["", "verbose", "info,", "downlink=loud", "hyper[conn]=debug", "=info", "a b=info"]
        {
            assert!(targets(text).is_err(), "{text}");
        }
        let error = parse_log("verbose").unwrap_err();
        assert!(error.contains("verbose") && error.contains("TARGET=LEVEL"), "{error}");
    }
}
