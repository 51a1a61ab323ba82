//! `GET /`: a page to subscribe, publish and watch events in a browser. The page's files are
//! compiled into the program.
//!
//! The content security policy allows only the page's own scripts and style, and requests to this
//! server. In browsers that support trusted types, the policy also prevents the page's scripts from
//! using text as HTML or as a script.

use axum::{
    Extension, Router,
    extract::RawQuery,
    http::header,
    response::{IntoResponse, Response},
    routing::get,
};

use downlink::access::Caller;
use downlink_access::Right;

use super::{query::Query, reply::Refused, state::App};

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
                      require-trusted-types-for 'script'; trusted-types 'none'";

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";

/// The path, content type and text of each file.
const FILES: [(&str, &str, &str); 10] = [
    ("/", HTML, include_str!("../page/index.html")),
    ("/page.css", STYLE, include_str!("../page/page.css")),
    ("/page.js", SCRIPT, include_str!("../page/page.js")),
    ("/page-feed.js", SCRIPT, include_str!("../page/page-feed.js")),
    ("/page-rows.js", SCRIPT, include_str!("../page/page-rows.js")),
    ("/page-json.js", SCRIPT, include_str!("../page/page-json.js")),
    ("/page-strip.js", SCRIPT, include_str!("../page/page-strip.js")),
    ("/page-overview.js", SCRIPT, include_str!("../page/page-overview.js")),
    ("/page-text.js", SCRIPT, include_str!("../page/page-text.js")),
    // A module for the pages of apps. The server's own page does not use it.
    ("/downlink.js", SCRIPT, include_str!("../page/downlink.js")),
];

/// The routes of the page and its files.
pub(super) fn routes() -> Router<App> {
    FILES.into_iter().fold(Router::new(), |router, (path, content_type, text)| {
        let answer = move |caller: Option<Extension<Caller>>, RawQuery(query)| async move {
            // `/downlink.js` needs no right, so its requests may have no caller.
            caller.map_or(Ok(()), |Extension(caller)| caller.check(Right::Admin))?;
            file(query.as_deref(), content_type, text)
        };
        router.route(path, get(answer))
    })
}

fn file(
    query: Option<&str>,
    content_type: &'static str,
    text: &'static str,
) -> Result<Response, Refused> {
    Query::read(query, &[])?;
    let headers = [
        (header::CONTENT_TYPE, content_type),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    Ok((headers, text).into_response())
}
