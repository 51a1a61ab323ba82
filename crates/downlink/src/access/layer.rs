//! A tower layer that verifies the credentials of each request.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use downlink_access::{Access, COOKIE_NAME_DEFAULT};
use http::{HeaderMap, Method, Request, Response, Uri, header};
use http_body::Body;
use http_body_util::Full;
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::caller::{Caller, now};
use super::origin::{Origins, single_value};
use super::presented::{presented, tickets};
use super::refusal::Refusal;
use crate::http::is_event_source;

/// Verifies the credentials of each request, and inserts a [`Caller`] into its extensions.
///
/// A credential is a key or a token in `Authorization: Bearer`, a ticket in the parameter `ticket`
/// of the query, or a token in a cookie. If the credential is not accepted, the layer answers with
/// a [`Refusal`], and the request does not reach the app.
///
/// A request without a credential reaches the app with a caller that may only read public topics
/// and the events for everyone. So every route has to check the rights of its caller. If a cookie
/// is not accepted, the layer treats the request like a request without a credential, so that
/// public topics can be read even with an old cookie.
///
/// A cookie counts if it comes from a page of the app's own origin or of an allowed
/// [origin](Self::origin). It also counts if the user has entered the address. Old browsers send
/// some requests without a header that names the page. The cookie of such a request counts only if
/// the method is `GET`. No other cookie counts. Otherwise, every page on the web could send
/// requests with the cookies of its visitors.
///
/// # Examples
///
/// ```
/// use downlink::access::AccessLayer;
/// use downlink_access::{Access, AccessOptions};
///
/// let access = Access::new(AccessOptions::default());
/// let layer = AccessLayer::new(access).cookie("session").origin("https://app.example");
/// # #[cfg(feature = "axum")]
/// let app: axum::Router = axum::Router::new().layer(layer);
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct AccessLayer {
    access: Access,
    cookie: String,
    origins: Vec<String>,
    hosts: Vec<String>,
}

impl AccessLayer {
    /// Verifies requests with this access. Clones of an access share their revocations. So keep a
    /// clone, and revoke credentials with it.
    pub fn new(access: Access) -> Self {
        let cookie = COOKIE_NAME_DEFAULT.to_owned();
        Self { access, cookie, origins: Vec::new(), hosts: Vec::new() }
    }

    /// Sets the name of the cookie that holds a token. Default:
    /// [`COOKIE_NAME_DEFAULT`].
    pub fn cookie(mut self, name: impl Into<String>) -> Self {
        self.cookie = name.into();
        self
    }

    /// Adds an origin, such as `https://app.example`, whose pages may use the cookie. May be called
    /// several times. Default: only pages of the app's own origin may use the cookie.
    pub fn origin(mut self, origin: impl Into<String>) -> Self {
        self.origins.push(origin.into());
        self
    }

    /// Adds a name of the app, such as `push.example`. A page belongs to the app's own origin if
    /// its origin has this name or the name in the header `Host`. An app behind a proxy that
    /// changes `Host` needs this setting. May be called several times.
    pub fn host(mut self, name: impl Into<String>) -> Self {
        self.hosts.push(name.into());
        self
    }
}

impl<S> Layer<S> for AccessLayer {
    type Service = AccessService<S>;

    fn layer(&self, inner: S) -> AccessService<S> {
        let Self { access, cookie, origins, hosts } = self.clone();
        let origins = Origins::new(&origins);
        AccessService { inner, verifier: Arc::new(Verifier { access, cookie, origins, hosts }) }
    }
}

/// The service that [`AccessLayer`] makes.
#[derive(Clone, Debug)]
pub struct AccessService<S> {
    inner: S,
    verifier: Arc<Verifier>,
}

#[derive(Debug)]
struct Verifier {
    access: Access,
    cookie: String,
    origins: Origins,
    hosts: Vec<String>,
}

impl<S, B, R> Service<Request<B>> for AccessService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: From<Bytes>,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = AccessFuture<S::Future, R>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        match self.verifier.verify(request.method(), request.uri(), request.headers()) {
            Ok(caller) => {
                request.extensions_mut().insert(caller);
                AccessFuture { inner: Some(self.inner.call(request)), refused: None }
            }
            Err(refusal) => {
                let response = refusal.into_http_response().map(|body| bytes_of(body).into());
                AccessFuture { inner: None, refused: Some(response) }
            }
        }
    }
}

impl Verifier {
    fn verify(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<Caller, Refusal> {
        let tickets = tickets(uri.query());
        let cookie = self.may_use_cookies(method, uri, headers).then_some(&*self.cookie);
        let presented = presented(headers, &tickets, cookie);
        let is_event_source = is_event_source(method, headers, uri.query());
        match self.access.verify(&presented, now()) {
            Ok(verified) => Ok(Caller::new(self.access.clone(), verified, is_event_source)),
            Err(error) if presented.is_cookie() => {
                Ok(Caller::with_bad_cookie(self.access.clone(), error, is_event_source))
            }
            Err(error) => Err(Refusal::new(error, is_event_source)),
        }
    }

    /// Whether a cookie of this request counts. It does not count if the request has two `Host`,
    /// `Origin` or `Sec-Fetch-Site` headers.
    fn may_use_cookies(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> bool {
        let Ok(host) = single_value(headers, &header::HOST) else { return false };
        let host = host.or(uri.authority().map(|authority| authority.as_str()));
        let names = self.hosts.iter().map(String::as_str).chain(host);
        let origin = self.origins.of(headers, method, names);
        origin.is_ok_and(|origin| origin.may_use_cookies(headers, method))
    }
}

/// The bytes of a body that is complete.
fn bytes_of(mut body: Full<Bytes>) -> Bytes {
    let mut cx = Context::from_waker(Waker::noop());
    match Pin::new(&mut body).poll_frame(&mut cx) {
        Poll::Ready(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
        _ => Bytes::new(),
    }
}

pin_project! {
    /// The future of [`AccessService`].
    #[derive(Debug)]
    pub struct AccessFuture<F, R> {
        // `None` if the layer has refused the request.
        #[pin]
        inner: Option<F>,
        // The refusal, until it is returned.
        refused: Option<Response<R>>,
    }
}

impl<F, R, E> Future for AccessFuture<F, R>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = Result<Response<R>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        match this.inner.as_pin_mut() {
            Some(inner) => inner.poll(cx),
            // A future is not polled after its end.
            None => this.refused.take().map_or(Poll::Pending, |refused| Poll::Ready(Ok(refused))),
        }
    }
}
