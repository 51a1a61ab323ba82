//! `GET /`: a page to subscribe and publish by hand, from files in the program.
//!
//! Its policy allows the page's own script and style and requests to this server, nothing else.

use axum::{
    extract::RawQuery,
    http::header,
    response::{IntoResponse, Response},
};

use super::{query::Query, reply::Refused};

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub(super) async fn page(RawQuery(query): RawQuery) -> Result<Response, Refused> {
    Query::read(query.as_deref(), &[])?;
    let page = file("text/html; charset=utf-8", include_str!("../page/index.html"));
    Ok(([(header::CONTENT_SECURITY_POLICY, POLICY)], page).into_response())
}

pub(super) async fn script(RawQuery(query): RawQuery) -> Result<Response, Refused> {
    Query::read(query.as_deref(), &[])?;
    Ok(file("text/javascript; charset=utf-8", include_str!("../page/page.js")))
}

pub(super) async fn style(RawQuery(query): RawQuery) -> Result<Response, Refused> {
    Query::read(query.as_deref(), &[])?;
    Ok(file("text/css; charset=utf-8", include_str!("../page/page.css")))
}

fn file(content_type: &'static str, text: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, content_type),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, text).into_response()
}
