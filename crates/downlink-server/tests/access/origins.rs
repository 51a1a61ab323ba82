//! Pages of other origins: the CORS headers of every answer, and the pages for which the server
//! accepts cookies.

use crate::{
    answer::Answer,
    cells::PAGE,
    credentials::{Signer, operator_but},
    request::Request,
    site::Site,
};

const COOKIE: &str = "__Host-downlink";

/// Header lines by name and value.
type Headers<'a> = &'a [(&'static str, &'a str)];

/// The values of `Access-Control-Allow-Origin`, `Access-Control-Allow-Credentials` and `Vary`.
fn cors(answer: &Answer) -> (Option<&str>, Option<&str>, Option<&str>) {
    let header = |name: &str| answer.header(name);
    let allowed = header("access-control-allow-origin");
    (allowed, header("access-control-allow-credentials"), header("vary"))
}

#[tokio::test]
async fn a_page_of_an_origin_in_cors_origin_can_read_every_answer() {
    let site = Site::start(&["--cors-origin", PAGE]);
    let ada = site.keys.user("ada");
    let get = |target: &str| Request::get(target).header("Origin", PAGE);
    let requests = [
        (get("/events?topic=rooms/1").bearer(&ada), "200"),
        (get("/events?topic=rooms/1"), "401 token_missing"),
        (get("/events?topic=other/1").bearer(&ada), "403 topic_denied"),
        (get("/events?unknown=1").bearer(&ada), "400"),
        (get("/topics"), "404"),
        (get("/nothing"), "404"),
        (get("/downlink.js"), "200"),
        (Request::new("PUT", "/events").header("Origin", PAGE).bearer(&ada), "405"),
        (Request::post("/events?topic=rooms/1", "x").header("Origin", PAGE).bearer(&ada), "200"),
        (Request::post("/tickets?topic=rooms/1", "").header("Origin", PAGE).bearer(&ada), "200"),
    ];
    for (request, expected) in requests {
        let answer = request.ask(site.public()).await;
        assert_eq!(answer.outcome(), expected, "{request:?}");
        assert_eq!(cors(&answer), (Some(PAGE), Some("true"), Some("origin")), "{request:?}");
        let exposed = answer.header("access-control-expose-headers").unwrap_or_default();
        assert!(exposed.contains("retry-after"), "{request:?}");
    }
    // The answer to a request without `Origin` must also have the header `Vary`. Otherwise, a cache
    // could give this answer to the page, and the page could not read it.
    let answer = Request::get("/events?topic=rooms/1").bearer(&ada).ask(site.public()).await;
    assert_eq!(cors(&answer), (None, None, Some("origin")));
    let metrics = get("/metrics").bearer(&site.keys.admin_key()).ask(site.admin()).await;
    assert_eq!(metrics.status, 200);
    let vary: Vec<&str> =
        metrics.head.lines().filter_map(|line| line.strip_prefix("vary: ")).collect();
    assert!(vary.iter().any(|name| name.contains("origin")), "{vary:?}");
}

#[tokio::test]
async fn a_page_of_any_other_origin_is_refused_and_cannot_read_the_answer() {
    let site = Site::start(&["--cors-origin", PAGE, "--public", "public/*"]);
    let ada = site.keys.user("ada");
    for origin in ["https://evil.example", "http://app.example", "https://app.example:444", "null"]
    {
        let request = Request::get("/events?topic=public/1").header("Origin", origin).bearer(&ada);
        let answer = request.ask(site.public()).await;
        assert_eq!(answer.outcome(), "403 origin_denied", "{origin}");
        assert_eq!(cors(&answer), (None, None, Some("origin")), "{origin}");
        let preflight = Request::new("OPTIONS", "/events")
            .header("Origin", origin)
            .header("Access-Control-Request-Method", "POST");
        let answer = preflight.ask(site.public()).await;
        assert_eq!(answer.outcome(), "403 origin_denied", "{origin}");
        assert_eq!(cors(&answer).0, None, "{origin}");
    }
}

/// At the limits of connections, the server answers before it checks the origin of a page. If the
/// page could not read the answer, its `EventSource` would never reconnect.
#[tokio::test]
async fn a_page_of_every_origin_can_read_a_refusal_at_a_limit_of_connections() {
    for limit in ["--connections-max", "--connections-per-address-max"] {
        let site = Site::start(&["--cors-origin", PAGE, "--public", "news", limit, "1"]);
        let news = || Request::get("/events?topic=news");
        let _open = site.subscribe(news()).await;
        for origin in [PAGE, "https://evil.example", "null"] {
            for request in [news(), news().of_browser()] {
                let answer = request.header("Origin", origin).ask(site.public()).await;
                assert_eq!(cors(&answer), (Some(origin), Some("true"), Some("origin")));
            }
        }
    }
}

/// A browser accepts no answer that has the header `Access-Control-Allow-Origin` twice.
#[tokio::test]
async fn a_refusal_has_each_cors_header_once() {
    let site = Site::start(&["--cors-origin", PAGE, "--public", "news", "--subscribers-max", "0"]);
    for request in
        [Request::get("/events?topic=news"), Request::get("/events?topic=news").of_browser()]
    {
        let request = request.header("Origin", PAGE);
        let mut headers = request.headers.clone();
        headers.retain(|(name, _)| *name != "Sec-Fetch-Site");
        let answer = Request { headers, ..request }.ask(site.public()).await;
        assert_eq!(cors(&answer), (Some(PAGE), Some("true"), Some("origin")), "{answer:?}");
        for name in ["access-control-allow-origin", "access-control-allow-credentials", "vary"] {
            assert_eq!(answer.head.matches(name).count(), 1, "{answer:?}");
        }
    }
}

#[tokio::test]
async fn a_preflight_needs_no_credential_and_lists_the_headers_that_pages_send() {
    let site = Site::start(&["--cors-origin", PAGE]);
    for path in ["/events", "/events/batch", "/tickets"] {
        let preflight = Request::new("OPTIONS", path)
            .header("Origin", PAGE)
            .header("Access-Control-Request-Method", "POST")
            .header("Access-Control-Request-Headers", "authorization,content-type");
        let answer = preflight.ask(site.public()).await;
        assert_eq!((answer.status, &*answer.body), (204, ""), "{path}");
        assert_eq!(cors(&answer), (Some(PAGE), Some("true"), Some("origin")), "{path}");
        let allowed = answer.header("access-control-allow-headers").unwrap_or_default();
        for name in ["authorization", "content-type", "last-event-id", "idempotency-key"] {
            assert!(allowed.split(", ").any(|allowed| allowed == name), "{name} in {allowed}");
        }
        let methods = answer.header("access-control-allow-methods").unwrap_or_default();
        assert_eq!(methods, "get, post, delete");
        assert_eq!(answer.header("access-control-max-age"), Some("7200"));
    }
}

#[tokio::test]
async fn with_cors_origin_star_every_page_may_use_the_server_without_cookies() {
    let site = Site::start(&["--cors-origin", &format!("*,{PAGE}"), "--public", "public/*"]);
    let token = site.keys.token(Signer::Es256, &operator_but(&[]));
    let cookie = format!("{COOKIE}={token}");
    let of = |origin: &str, topic: &str| {
        Request::get(format!("/events?topic={topic}")).header("Origin", origin)
    };
    let any = "https://any.example";
    let answer = of(any, "public/1").ask(site.public()).await;
    assert_eq!((answer.status, cors(&answer)), (200, (Some("*"), None, Some("origin"))));
    let answer = of(any, "rooms/1").header("Cookie", &cookie).ask(site.public()).await;
    assert_eq!(answer.outcome(), "401 token_missing");
    assert_eq!(cors(&answer).0, Some("*"));
    let answer = of(any, "rooms/1").bearer(&token).ask(site.public()).await;
    assert_eq!((answer.status, cors(&answer).0), (200, Some("*")));
    // The server accepts cookies from a page whose origin `--cors-origin` names.
    let answer = of(PAGE, "rooms/1").header("Cookie", &cookie).ask(site.public()).await;
    assert_eq!((answer.status, cors(&answer).0), (200, Some(PAGE)));
    assert_eq!(cors(&answer).1, Some("true"));
}

#[tokio::test]
async fn a_cookie_is_accepted_only_from_pages_that_the_server_knows() {
    let site = Site::start(&["--cors-origin", PAGE]);
    let cookie = format!("{COOKIE}={}", site.keys.user("ada"));
    let own = format!("http://{}", site.public().host());
    let (site_header, origin) = ("Sec-Fetch-Site", "Origin");
    let cases: [(Headers<'_>, &str, &str); 9] = [
        (&[(origin, PAGE)], "200", "200"),
        (&[(origin, &own)], "200", "200"),
        (&[(site_header, "same-origin")], "200", "200"),
        (&[(site_header, "none")], "200", "200"),
        (&[(site_header, "cross-site")], "403 origin_denied", "403 origin_denied"),
        (&[(site_header, "same-site")], "403 origin_denied", "403 origin_denied"),
        (&[(origin, "null")], "403 origin_denied", "403 origin_denied"),
        (&[(origin, "https://evil.example")], "403 origin_denied", "403 origin_denied"),
        // An old browser does not say which page sent the request, so the request may only read.
        (&[], "200", "401 token_missing"),
    ];
    for (headers, reads, publishes) in cases {
        let with_headers = |request: Request| {
            let request = request.header("Cookie", format!("theme=dark; {cookie}"));
            headers.iter().fold(request, |request, (name, value)| request.header(name, *value))
        };
        let read = with_headers(Request::get("/events?topic=rooms/1"));
        assert_eq!(read.ask(site.public()).await.outcome(), reads, "{headers:?}");
        let before = site.events("rooms/1").await.as_u64().expect("a number");
        let publish = with_headers(Request::post("/events?topic=rooms/1", "x"));
        assert_eq!(publish.ask(site.public()).await.outcome(), publishes, "{headers:?}");
        let added = u64::from(publishes == "200");
        assert_eq!(site.events("rooms/1").await, before + added, "{headers:?}");
    }
}

#[tokio::test]
async fn a_request_with_a_bad_cookie_may_still_read_public_topics() {
    let site = Site::start(&["--public", "public/*"]);
    let expired = site.keys.token(Signer::Es256, &crate::credentials::expired());
    let cookie = format!("{COOKIE}={expired}");
    let get = |topic: &str| {
        let request = Request::get(format!("/events?topic={topic}"));
        request.header("Sec-Fetch-Site", "same-origin").header("Cookie", &cookie)
    };
    assert_eq!(get("public/1").ask(site.public()).await.outcome(), "200");
    assert_eq!(get("rooms/1").ask(site.public()).await.outcome(), "401 token_expired");
    let publish = Request::post("/events?topic=rooms/1", "x")
        .header("Sec-Fetch-Site", "same-origin")
        .header("Cookie", &cookie);
    assert_eq!(publish.ask(site.public()).await.outcome(), "401 token_expired");
    // A token in a header overrides the cookie, and a bad token is always refused.
    let ada = site.keys.user("ada");
    assert_eq!(get("rooms/1").bearer(&ada).ask(site.public()).await.outcome(), "200");
    let answer = get("public/1").bearer(&expired).ask(site.public()).await;
    assert_eq!(answer.outcome(), "401 token_expired");
    let twice = Request::get("/events?topic=rooms/1")
        .header("Cookie", format!("{COOKIE}={ada}; {COOKIE}={ada}"));
    assert_eq!(twice.ask(site.public()).await.outcome(), "401 token_malformed");
}
