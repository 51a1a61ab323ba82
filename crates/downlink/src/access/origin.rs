//! Decides from the origin of a request whether the page may use the server, and tells the browser
//! the decision in CORS headers.
//!
//! A browser names the origin of a page in `Origin`, or says in `Sec-Fetch-Site` how the page
//! relates to the server. A page of the server's own origin needs no permission. A page of a listed
//! origin gets the CORS headers with every answer. If the list contains `*`, every other page may
//! use the server too, but without credentials. Without `*`, every other page is refused.

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

/// The origins of pages that may use the server.
#[derive(Clone, Debug, Default)]
pub struct Origins {
    listed: Vec<String>,
    /// Every page may use the server, but without credentials.
    every: bool,
}

/// The page that has sent a request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Origin {
    /// The request names no page. A program has sent it, or a browser whose user has entered the
    /// address.
    None,
    /// A page of the server itself.
    Own,
    /// A page of a listed origin, which may use its user's credentials.
    Listed(HeaderValue),
    /// A page of an origin that is not listed, if the list contains `*`. Or a navigation of the
    /// browser to the server, for example by a link on a page of another origin. In both cases, the
    /// cookies of the request do not count.
    Any,
    /// A page that may not use the server.
    Foreign(String),
}

/// The request headers that a page of another origin may set.
const ALLOWED_HEADERS: &str = "authorization, content-type, last-event-id, idempotency-key";
const ALLOWED_METHODS: &str = "GET, POST, DELETE";
/// How long a browser may remember the answer to a preflight, in seconds. Browsers allow at most
/// two hours.
const PREFLIGHT_SECONDS: &str = "7200";

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

impl Origins {
    /// These origins, such as `https://app.example`. If `*` is among them, every page may use the
    /// server. A page of another origin may then send credentials only if its own origin is listed
    /// too.
    pub fn new(listed: &[String]) -> Self {
        let every = listed.iter().any(|origin| origin == "*");
        Self { listed: listed.iter().filter(|origin| *origin != "*").cloned().collect(), every }
    }

    /// The page that has sent a request. `own` are the names of the server: the `Host` header, and
    /// the configured names.
    ///
    /// # Errors
    ///
    /// The name of a header that the request has twice.
    pub fn of<'n>(
        &self,
        headers: &HeaderMap,
        method: &Method,
        own: impl Iterator<Item = &'n str> + Clone,
    ) -> Result<Origin, HeaderName> {
        let site = single_value(headers, &SEC_FETCH_SITE)?;
        let origin = single_value(headers, &header::ORIGIN)?;
        // The browser has compared the origin of the page with the address of the request. `Host`
        // is less reliable, because a proxy may have changed it.
        if site == Some("same-origin") {
            return Ok(Origin::Own);
        }
        if let Some(origin) = origin {
            // If the browser says that the page is not the server's own, the names are not
            // compared. Equal names would prove nothing: the scheme or the port may differ, or a
            // proxy may have put the page's name into `Host`.
            let is_foreign = site.is_some_and(|site| site != "none");
            return Ok(self.of_header(origin, own.filter(|_| !is_foreign)));
        }
        // Some requests of browsers have no `Origin`, but they have `Sec-Fetch-Site`.
        let navigates = headers.get("sec-fetch-mode").is_some_and(|mode| mode == "navigate");
        let reads = matches!(*method, Method::GET | Method::HEAD);
        Ok(match site {
            None | Some("none") => Origin::None,
            Some(_) if reads && navigates => Origin::Any,
            Some(_) => Origin::Foreign("another site".into()),
        })
    }

    fn of_header<'n>(&self, origin: &str, mut own: impl Iterator<Item = &'n str>) -> Origin {
        if own.any(|name| is_own(origin, name)) {
            return Origin::Own;
        }
        let is_listed = self.listed.iter().any(|listed| listed.eq_ignore_ascii_case(origin));
        match HeaderValue::from_str(origin) {
            Ok(value) if is_listed => Origin::Listed(value),
            _ if self.every => Origin::Any,
            _ => Origin::Foreign(origin.to_owned()),
        }
    }

    /// Adds the CORS headers to an answer.
    pub fn mark(&self, origin: &Origin, headers: &mut HeaderMap) {
        if !self.listed.is_empty() {
            // A cache must not use the answer to one page for another page.
            headers.append(header::VARY, HeaderValue::from_static("Origin"));
        }
        let allowed = match origin {
            Origin::Listed(origin) => {
                let yes = HeaderValue::from_static("true");
                headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
                origin.clone()
            }
            Origin::Any if self.every => HeaderValue::from_static("*"),
            _ => return,
        };
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        let exposed = HeaderValue::from_static("retry-after, www-authenticate");
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
    }

    /// The headers of the answer to a preflight, besides those of [`mark`](Self::mark).
    pub fn preflight() -> [(HeaderName, &'static str); 3] {
        [
            (header::ACCESS_CONTROL_ALLOW_METHODS, ALLOWED_METHODS),
            (header::ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED_HEADERS),
            (header::ACCESS_CONTROL_MAX_AGE, PREFLIGHT_SECONDS),
        ]
    }
}

impl Origin {
    /// Whether a cookie of this request counts as a credential. If the request has neither `Origin`
    /// nor `Sec-Fetch-Site`, it may come from an old browser. Its cookie then counts only for a
    /// `GET`.
    pub fn may_use_cookies(&self, headers: &HeaderMap, method: &Method) -> bool {
        match self {
            Self::Own | Self::Listed(_) => true,
            Self::None => headers.contains_key(SEC_FETCH_SITE) || *method == Method::GET,
            Self::Any | Self::Foreign(_) => false,
        }
    }
}

/// The value of a header that may be given only once. If there were two values, a proxy might check
/// one of them and this server the other.
pub fn single_value<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> Result<Option<&'a str>, HeaderName> {
    let mut values = headers.get_all(name).iter();
    match (values.next().map(HeaderValue::to_str), values.next()) {
        (None, _) => Ok(None),
        (Some(Ok(value)), None) => Ok(Some(value)),
        _ => Err(name.clone()),
    }
}

/// Whether an origin belongs to a server with this name. The default port of a scheme may be
/// written or left out, in the origin and in the name.
fn is_own(origin: &str, name: &str) -> bool {
    let schemes = [("http://", ":80"), ("https://", ":443")];
    let own = schemes.iter().find_map(|(scheme, port)| Some((origin.strip_prefix(scheme)?, port)));
    let Some((rest, port)) = own else { return false };
    let bare = |text: &str| text.strip_suffix(*port).unwrap_or(text).to_ascii_lowercase();
    bare(rest) == bare(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(headers: &[(&'static str, &'static str)], method: &Method, own: &[&str]) -> Origin {
        let listed = ["https://app.example".to_owned()];
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        Origins::new(&listed).of(&map, method, own.iter().copied()).unwrap()
    }

    fn origin(origin: &'static str, own: &[&str]) -> Origin {
        of(&[("origin", origin)], &Method::POST, own)
    }

    #[test]
    fn a_page_belongs_to_the_server_if_its_origin_has_a_name_of_the_server() {
        let own = |text, names: &[&str]| origin(text, names) == Origin::Own;
        assert!(own("http://127.0.0.1:8080", &["127.0.0.1:8080"]));
        assert!(own("https://push.example", &["127.0.0.1:8080", "push.example"]));
        assert!(own("https://name", &["name:443"]) && own("https://Name:443", &["name"]));
        assert!(own("http://name", &["name:80"]));
        for (text, name) in [
            ("http://127.0.0.1:8081", "127.0.0.1:8080"),
            ("http://localhost:8080", "127.0.0.1:8080"),
            ("http://127.0.0.1:8080.evil.example", "127.0.0.1:8080"),
            ("null", "127.0.0.1:8080"),
            ("http://name", "name:443"),
            ("https://name", "name:80"),
            ("https://name:8443", "name"),
        ] {
            assert_eq!(origin(text, &[name]), Origin::Foreign(text.to_owned()));
        }
    }

    #[test]
    fn a_listed_origin_is_compared_as_a_whole() {
        let listed = HeaderValue::from_static("https://app.example");
        assert_eq!(origin("https://app.example", &[]), Origin::Listed(listed));
        for text in ["http://app.example", "https://app.example:8443", "https://a.app.example"] {
            assert!(matches!(origin(text, &[]), Origin::Foreign(_)), "{text}");
        }
    }

    #[test]
    fn without_an_origin_header_the_fetch_site_decides() {
        let site = |site, mode, method| {
            of(&[("sec-fetch-site", site), ("sec-fetch-mode", mode)], &method, &[])
        };
        assert_eq!(site("same-origin", "cors", Method::GET), Origin::Own);
        assert_eq!(site("none", "navigate", Method::GET), Origin::None);
        assert_eq!(site("cross-site", "navigate", Method::GET), Origin::Any);
        assert!(matches!(site("same-site", "no-cors", Method::GET), Origin::Foreign(_)));
        assert!(matches!(site("cross-site", "navigate", Method::POST), Origin::Foreign(_)));
    }

    #[test]
    fn sec_fetch_site_overrides_the_comparison_of_names() {
        let (own, foreign) = (("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site"));
        let behind = ("origin", "https://behind.a.proxy");
        assert_eq!(of(&[own, behind], &Method::POST, &[]), Origin::Own);
        assert!(matches!(of(&[foreign, behind], &Method::POST, &[]), Origin::Foreign(_)));
        let other_scheme = [("sec-fetch-site", "cross-site"), ("origin", "http://push.example")];
        assert!(matches!(of(&other_scheme, &Method::POST, &["push.example"]), Origin::Foreign(_)));
        let listed = [("sec-fetch-site", "same-site"), ("origin", "https://app.example")];
        assert!(matches!(of(&listed, &Method::POST, &["app.example"]), Origin::Listed(_)));
    }

    #[test]
    fn a_cookie_counts_for_a_known_page_or_for_a_get_request_without_a_page() {
        let (get, post) = (Method::GET, Method::POST);
        let none = HeaderMap::new();
        assert!(Origin::Own.may_use_cookies(&none, &post));
        assert!(Origin::None.may_use_cookies(&none, &get));
        assert!(!Origin::None.may_use_cookies(&none, &post));
        assert!(!Origin::Any.may_use_cookies(&none, &get));
        assert!(!Origin::Foreign(String::new()).may_use_cookies(&none, &get));
    }

    #[test]
    fn a_header_that_is_given_twice_is_an_error() {
        let mut headers = HeaderMap::new();
        headers.append(header::ORIGIN, HeaderValue::from_static("https://a.example"));
        headers.append(header::ORIGIN, HeaderValue::from_static("https://b.example"));
        let found = Origins::default().of(&headers, &Method::GET, [].into_iter());
        assert_eq!(found, Err(header::ORIGIN));
    }

    #[test]
    fn if_the_list_has_a_star_every_page_may_read_without_credentials() {
        let origins = Origins::new(&["*".to_owned()]);
        let mut headers = HeaderMap::new();
        headers.insert(header::ORIGIN, HeaderValue::from_static("https://any.example"));
        let origin = origins.of(&headers, &Method::GET, [].into_iter()).unwrap();
        let mut answer = HeaderMap::new();
        origins.mark(&origin, &mut answer);
        assert_eq!(answer[header::ACCESS_CONTROL_ALLOW_ORIGIN], "*");
        assert!(!answer.contains_key(header::ACCESS_CONTROL_ALLOW_CREDENTIALS));
    }
}
