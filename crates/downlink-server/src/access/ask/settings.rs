//! The flags of the question to the app, for `downlink serve`.

use clap::Args;

use crate::access::outgoing;

/// Lets the app decide about subscriptions.
#[derive(Args, Clone, Debug, Default)]
#[non_exhaustive]
pub struct AskSettings {
    /// The URL at which the app decides about a subscription without a token or a ticket. The server
    /// POSTs `{"topics": […], "client": …, "address": …, "origin": …}`, and the app answers with
    /// 401, 403, or 200 and a grant such as `{"subscribe": ["orders/*"], "client": "ada"}`. If
    /// the answer has `Cache-Control: max-age=60`, the server uses it for equal questions for a
    /// minute. If no JSON Web Tokens are configured, the app also gets the Authorization header. Use
    /// https:// for an app on another machine: with http://, anyone on the network between can read
    /// the credentials.
    #[arg(
        long,
        env = "DOWNLINK_AUTHORIZE_URL",
        value_name = "URL",
        value_parser = parse_authorize_url
    )]
    pub authorize_url: Option<String>,
    /// A cookie that the app gets with the question, such as the one of its session. May be given
    /// several times, or separated by commas. Needs --authorize-url.
    #[arg(
        long,
        env = "DOWNLINK_AUTHORIZE_COOKIE",
        value_name = "NAME",
        value_delimiter = ',',
        requires = "authorize_url",
        value_parser = parse_cookie_name
    )]
    pub authorize_cookie: Vec<String>,
}

/// The settings of an [`AskApp`](super::AskApp).
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct AskOptions {
    /// The URL of the app.
    pub(crate) url: String,
    /// The names of the cookies that the app gets.
    pub(crate) cookies: Vec<String>,
    /// Whether the app gets the `Authorization` header. False if the server itself verifies tokens.
    pub(crate) passes_authorization: bool,
}

impl AskSettings {
    /// The options of an [`AskApp`](super::AskApp), if there is an app to ask. `has_tokens` says
    /// whether the server itself verifies JSON Web Tokens.
    pub(crate) fn options(&self, has_tokens: bool) -> Option<AskOptions> {
        let url = self.authorize_url.clone()?;
        let cookies = self.authorize_cookie.clone();
        Some(AskOptions { url, cookies, passes_authorization: !has_tokens })
    }
}

fn parse_authorize_url(text: &str) -> Result<String, String> {
    outgoing::parse_url(text).map_err(|error| format!("{error:#}"))?;
    Ok(text.to_owned())
}

/// Parses the name of a cookie: a token of RFC 6265.
fn parse_cookie_name(text: &str) -> Result<String, String> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    match !text.is_empty() && text.bytes().all(is_token) {
        true => Ok(text.to_owned()),
        false => Err(format!("{text:?} is not the name of a cookie; write it without its value")),
    }
}

#[cfg(test)]
mod tests {
    use clap::{Command, FromArgMatches as _};

    use super::*;

    fn parse(arguments: &[&str]) -> Result<AskSettings, clap::Error> {
        let command = AskSettings::augment_args(Command::new("serve")).no_binary_name(true);
        AskSettings::from_arg_matches(&command.try_get_matches_from(arguments)?)
    }

    const URL: &str = "http://127.0.0.1:3000/may-subscribe";

    #[test]
    fn without_a_url_no_app_is_asked() {
        assert!(parse(&[]).unwrap().options(false).is_none());
    }

    #[test]
    fn cookies_may_be_given_several_times() {
        let cookies = ["--authorize-cookie", "sid,__Host-a", "--authorize-cookie", "b"];
        let settings = parse(&[&["--authorize-url", URL][..], &cookies].concat()).unwrap();
        let options = settings.options(false).unwrap();
        assert_eq!((options.url.as_str(), options.passes_authorization), (URL, true));
        assert_eq!(options.cookies, ["sid", "__Host-a", "b"]);
        assert!(!settings.options(true).unwrap().passes_authorization);
    }

    #[test]
    fn wrong_settings_are_refused() {
        assert!(parse(&["--authorize-cookie", "sid"]).is_err(), "there is no app");
        for name in ["", "a=b", "a b", "a;b", "é"] {
            let arguments = ["--authorize-url", URL, "--authorize-cookie", name];
            assert!(parse(&arguments).is_err(), "{name}");
        }
        for url in ["app.example", "ftp://app", "http://user:secret@app.example/"] {
            let error = parse(&["--authorize-url", url]).unwrap_err().to_string();
            assert!(error.contains("URL"), "{error}");
        }
    }
}
