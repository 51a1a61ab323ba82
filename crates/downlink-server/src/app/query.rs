//! Reads the query of a request. Unknown parameters and values that are not UTF-8 are refused.
//!
//! An unknown parameter is most likely a typing error, and a refusal shows the error early. There
//! are three exceptions:
//!
//! - Names that begin with `_` are ignored, because other programs add such parameters.
//! - `last_event_id` may have any value, because a browser never reconnects after a 400. Client
//!   libraries spell this name in several ways, and the server accepts them all. The library
//!   `downlink` reads the value.
//! - Other parameters that client libraries add are ignored, also because a browser never
//!   reconnects after a 400.

use downlink::{
    LastEventId,
    access::TICKET_PARAMETER,
    hub::{ClientId, TopicSelector},
};
use percent_encoding::percent_decode;

use super::reply::{Refused, bad_request, shown};

/// The parameter whose value is never refused. Client libraries spell its name in several ways.
const LENIENT: &str = "last_event_id";

/// Parameters that polyfills of `EventSource` add. They ask the server to begin the stream with
/// white space, which today's browsers do not need.
const OF_POLYFILLS: [&str; 2] = ["evs_preamble", "padding"];

/// The parameters of one request, in their order.
#[derive(Debug)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads a query. All its parameters must be among `known`.
    pub(super) fn read(query: Option<&str>, known: &[&str]) -> Result<Self, Refused> {
        let mut parameters = Vec::new();
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decode(name)?;
            // The module `guard` has already read the parameter with the ticket, which is a
            // credential.
            if name.starts_with('_') || name == TICKET_PARAMETER {
                continue;
            }
            let subscribes = known.contains(&LENIENT);
            let is_ignored =
                LastEventId::is_parameter(&name) || OF_POLYFILLS.contains(&name.as_str());
            if subscribes && is_ignored {
                continue;
            }
            if !known.contains(&name.as_str()) {
                return Err(unknown(&name, known));
            }
            parameters.push((name, decode(value)?));
        }
        Ok(Self(parameters))
    }

    /// All values of a parameter that may be repeated.
    pub(super) fn all<'a, 'n>(
        &'a self,
        name: &'n str,
    ) -> impl Iterator<Item = &'a str> + use<'a, 'n> {
        let named = self.0.iter().filter(move |(found, _)| found == name);
        named.map(|(_, value)| value.as_str())
    }

    /// Whether the query has this parameter, with or without a value.
    pub(super) fn is_given(&self, name: &str) -> bool {
        self.all(name).next().is_some()
    }

    /// The value of a parameter that may be given at most once.
    pub(super) fn one(&self, name: &str) -> Result<Option<&str>, Refused> {
        let mut values = self.all(name);
        let first = values.next();
        match values.next() {
            Some(_) => Err(bad_request(format!("Give the parameter {name} only once."))),
            None => Ok(first),
        }
    }

    /// The client id in the parameter `client`.
    pub(super) fn client(&self) -> Result<Option<ClientId>, Refused> {
        let parse = |text: &str| {
            ClientId::new(text).map_err(|error| {
                bad_request(format!(
                    "The parameter client is {}, which is not a client id: {error}.",
                    shown(text)
                ))
            })
        };
        self.one("client")?.map(parse).transpose()
    }

    /// The topics and patterns in the parameters `topic`.
    pub(super) fn selectors(&self) -> Result<Vec<TopicSelector>, Refused> {
        let parse = |text: &str| {
            TopicSelector::parse(text).map_err(|error| {
                bad_request(format!("The parameter topic is {}: {error}.", shown(text)))
            })
        };
        self.all("topic").map(parse).collect()
    }

    /// Reads a parameter that is on (`name`, `name=1`, `name=true`) or off (`name=0`,
    /// `name=false`).
    pub(super) fn flag(&self, name: &str) -> Result<Option<bool>, Refused> {
        match self.one(name)? {
            None => Ok(None),
            Some("" | "1" | "true") => Ok(Some(true)),
            Some("0" | "false") => Ok(Some(false)),
            Some(other) => Err(bad_request(format!(
                "The value of {name} must be 1 or 0, not {}.",
                shown(other)
            ))),
        }
    }

    /// Reads a whole number.
    pub(super) fn number<N: std::str::FromStr>(&self, name: &str) -> Result<Option<N>, Refused> {
        let parse = |value: &str| {
            let digits = value.bytes().all(|byte| byte.is_ascii_digit());
            value.parse().ok().filter(|_| digits).ok_or_else(|| {
                bad_request(format!(
                    "The value of {name} must be a whole number, not {}.",
                    shown(value)
                ))
            })
        };
        self.one(name)?.map(parse).transpose()
    }
}

fn decode(text: &str) -> Result<String, Refused> {
    let spaced = text.replace('+', " ");
    let decoded = percent_decode(spaced.as_bytes()).decode_utf8();
    decoded.map(String::from).map_err(|_| {
        bad_request(format!("The query has a part that is not UTF-8: {}.", shown(text)))
    })
}

fn unknown(name: &str, known: &[&str]) -> Refused {
    // All known names are short, so comparing the start of a long name is enough.
    let start: String = name.chars().take(32).collect();
    let bare = |name: &str| name.to_lowercase().replace(['_', '-'], "");
    let distance = |known: &&&str| strsim::damerau_levenshtein(&bare(&start), &bare(known));
    let nearest = known.iter().min_by_key(distance).filter(|known| distance(known) <= 3);
    let known = match (nearest, known) {
        (_, []) => "This address takes no parameters.".to_owned(),
        (Some(nearest), _) => format!("You may mean {nearest}."),
        (None, _) => format!("The parameters are: {}.", known.join(", ")),
    };
    bad_request(format!("There is no parameter {}. {known}", shown(name)))
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;

    use super::*;

    const KNOWN: &[&str] = &["topic", "client", "last"];

    fn read(query: &str) -> Query {
        Query::read(Some(query), KNOWN).unwrap()
    }

    fn detail(query: &str) -> String {
        format!("{:?}", Query::read(Some(query), KNOWN).unwrap_err())
    }

    #[test]
    fn values_are_decoded_in_order() {
        let query = read("topic=a%2Fb&topic=c+d&&_=7&client=%C3%A9");
        assert_eq!(query.all("topic").collect::<Vec<_>>(), ["a/b", "c d"]);
        assert_eq!(query.one("client").unwrap(), Some("é"));
        assert_eq!(query.one("last").unwrap(), None);
    }

    #[test]
    fn unknown_names_come_with_a_suggestion() {
        assert!(detail("topics=a").contains("You may mean topic."));
        assert!(detail("TOPIC=a").contains("You may mean topic."));
        assert!(detail("xyzxyzxyz=a").contains("The parameters are: topic, client, last."));
        let nothing = format!("{:?}", Query::read(Some("a"), &[]).unwrap_err());
        assert!(nothing.contains("takes no parameters"));
    }

    #[test]
    fn bytes_that_are_not_utf8_are_refused() {
        assert!(detail("topic=%ff").contains("not UTF-8"));
    }

    #[test]
    fn a_last_event_id_and_parameters_of_other_programs_are_never_refused() {
        let known = ["topic", "last_event_id"];
        let query = "last_event_id=%ff&lastEventId=&evs_last_event_id=7&Last-Event-ID=x&_%41=%ff\
                     &topic=a&evs_preamble=2056&padding=true";
        let query = Query::read(Some(query), &known).unwrap();
        assert_eq!(query.one("topic").unwrap(), Some("a"));
    }

    #[test]
    fn flags_and_numbers_are_read_strictly() {
        assert_eq!(read("last").flag("last").unwrap(), Some(true));
        assert_eq!(read("last=0").flag("last").unwrap(), Some(false));
        assert!(read("last=maybe").flag("last").is_err());
        assert_eq!(read("last=7").number::<u64>("last").unwrap(), Some(7));
        assert!(read("last=+7").number::<u64>("last").is_err());
        assert!(read("last=%2B7").number::<u64>("last").is_err());
        assert!(read("last=7&last=7").number::<u64>("last").is_err());
        let max = read("last=18446744073709551615");
        assert_eq!(max.number::<u64>("last").unwrap(), Some(u64::MAX));
        assert!(read("last=18446744073709551616").number::<u64>("last").is_err());
    }

    #[test]
    fn a_refused_query_has_status_400() {
        let refused = Query::read(Some("x"), KNOWN).unwrap_err();
        assert_eq!(refused.into_response().status(), 400);
    }
}
