//! Sends requests of a stranger with any query to a server with public topics below `news`. The
//! answer may only be a stream if an independent parser finds nothing but public topics in the
//! query.

#![no_main]

use std::sync::{Arc, OnceLock};

use axum::{Router, body::Body, http::Request};
use clap::{Args, Command, FromArgMatches};
use downlink_server::{
    access::{AccessSettings, Control, Role},
    app,
    config::Settings,
};
use libfuzzer_sys::fuzz_target;
use tokio::runtime::Runtime;
use tower::ServiceExt as _;

const METHODS: [&str; 4] = ["GET", "POST", "DELETE", "OPTIONS"];
const PATHS: [&str; 8] = [
    "/events",
    "/events/batch",
    "/tickets",
    "/revoke",
    "/topics",
    "/clients",
    "/finish",
    "/metrics",
];

struct Server {
    runtime: Runtime,
    app: Router,
}

fn settings<S: Args + FromArgMatches>(words: &[&str]) -> S {
    let command = S::augment_args(Command::new("serve"));
    let matches = command.try_get_matches_from(words).expect("the flags are valid");
    S::from_arg_matches(&matches).expect("the flags are valid")
}

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| {
        let folder = std::env::temp_dir().join(format!("downlink-fuzz-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("the folder for temporary files is writable");
        std::env::set_current_dir(&folder).expect("the folder exists");
        let serve: Settings = settings(&["serve", "--store", "none"]);
        let access: AccessSettings = settings(&["serve", "--public", "news/*"]);
        let runtime = Runtime::new().expect("threads can be started");
        let control = Control::open(&serve, &access).expect("the keys can be made");
        let hub = app::hub(&serve).expect("the settings are valid");
        let app = app::app(hub, serve, Arc::new(control), Role::Only, Arc::default());
        Server { runtime, app }
    })
}

fuzz_target!(|input: (u8, u8, &str)| {
    let (method, path, query) = input;
    let method = METHODS[usize::from(method) % METHODS.len()];
    let path = PATHS[usize::from(path) % PATHS.len()];
    let request = Request::builder().method(method).uri(format!("{path}?{query}"));
    let request = request.header("host", "localhost").body(Body::empty());
    // Not every text is a query of an address.
    let Ok(request) = request else { return };
    let query = request.uri().query().unwrap_or_default().to_owned();
    let server = server();
    let answer = server.runtime.block_on(server.app.clone().oneshot(request));
    let status = answer.expect("the service does not fail").status().as_u16();
    if status < 400 && method != "OPTIONS" {
        assert_eq!((method, path), ("GET", "/events"), "a stranger got {status} for {query:?}");
        assert!(is_public(&query), "a stranger subscribed with {query:?}");
    }
    assert!(status < 500, "{status} for {method} {path}?{query:?}");
});

/// Whether a query asks for nothing but topics below `news`.
fn is_public(query: &str) -> bool {
    form_urlencoded::parse(query.as_bytes()).all(|(name, value)| match &*name {
        "topic" => value.starts_with("news/"),
        "client" | "ticket" => false,
        _ => true,
    })
}
