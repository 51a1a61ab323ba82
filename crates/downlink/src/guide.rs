//! The guide to this crate.
//!
//! Each module is one chapter, with the text of a file in the folder `guide`. The module `guide`
//! itself exists only for the documentation and its tests. If all features are on, the tests
//! compile and run every example of the chapters. With fewer features, the tests skip the chapters,
//! because the examples use all features.

#![cfg(any(
    not(doctest),
    all(
        feature = "access",
        feature = "axum",
        feature = "cluster",
        feature = "json",
        feature = "metrics",
        feature = "serve",
        feature = "store",
        feature = "testing"
    )
))]

/// Includes the chapters. The text of `links!` defines the targets of the links between chapters.
/// The chapters also define these links, as links between files. Rustdoc uses the first definition
/// of a link, so the text of `links!` comes before each chapter.
macro_rules! chapters {
    ($($module:ident: $file:literal,)*) => {
        $(
            #[doc = links!()]
            #[doc = include_str!(concat!("../guide/", $file))]
            pub mod $module {}
        )*
    };
}

macro_rules! links {
    () => {
        "\
[chapter 1]: crate::guide::what_sse_is
[chapter 2]: crate::guide::first_endpoint
[chapter 3]: crate::guide::event_fields
[chapter 4]: crate::guide::connection_life
[chapter 5]: crate::guide::hub
[chapter 6]: crate::guide::your_own_types
[chapter 7]: crate::guide::rooms_and_patterns
[chapter 8]: crate::guide::targeting
[chapter 9]: crate::guide::replay_and_gaps
[chapter 10]: crate::guide::filters
[chapter 11]: crate::guide::lag_and_limits
[chapter 12]: crate::guide::keep_alive
[chapter 13]: crate::guide::auth_cors_rates
[chapter 14]: crate::guide::metrics
[chapter 15]: crate::guide::reverse_proxies
[chapter 16]: crate::guide::shutdown
[chapter 17]: crate::guide::errors
[chapter 18]: crate::guide::testing
[chapter 19]: crate::guide::from_tokio_broadcast
[chapter 20]: crate::guide::from_go_stream
[chapter 21]: crate::guide::browser
[chapter 22]: crate::guide::durability
[chapter 23]: crate::guide::from_axum_sse
[chapter 24]: crate::guide::access_control
[chapter 25]: crate::guide::tickets
[chapter 26]: crate::guide::the_apps_session
[chapter 27]: crate::guide::threat_model
[chapter 28]: crate::guide::in_production
[chapter 29]: crate::guide::several_machines
[chapter 30]: crate::guide::a_cluster
[limits]: crate::hub::Limits
[wire]: crate::http
"
    };
}

chapters! {
    what_sse_is: "01-what-sse-is.md",
    first_endpoint: "02-first-endpoint.md",
    event_fields: "03-event-fields.md",
    connection_life: "04-connection-life.md",
    hub: "05-hub.md",
    your_own_types: "06-your-own-types.md",
    rooms_and_patterns: "07-rooms-and-patterns.md",
    targeting: "08-targeting.md",
    replay_and_gaps: "09-replay-and-gaps.md",
    filters: "10-filters.md",
    lag_and_limits: "11-lag-and-limits.md",
    keep_alive: "12-keep-alive.md",
    auth_cors_rates: "13-auth-cors-rates.md",
    metrics: "14-metrics.md",
    reverse_proxies: "15-reverse-proxies.md",
    shutdown: "16-shutdown.md",
    errors: "17-errors.md",
    testing: "18-testing.md",
    from_tokio_broadcast: "19-from-tokio-broadcast.md",
    from_go_stream: "20-from-go-stream.md",
    browser: "21-browser.md",
    durability: "22-durability.md",
    from_axum_sse: "23-from-axum-sse.md",
    access_control: "24-access-control.md",
    tickets: "25-tickets.md",
    the_apps_session: "26-the-apps-session.md",
    threat_model: "27-threat-model.md",
    in_production: "28-in-production.md",
    several_machines: "29-several-machines.md",
    a_cluster: "30-a-cluster.md",
}

/// The examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
