//! Where a request has its credentials: in `Authorization`, in the query, or in a cookie.

use std::borrow::Cow;

use downlink_access::Presented;
use http::{HeaderMap, header};
use percent_encoding::percent_decode;

/// The name of the query parameter that contains a ticket (a credential in the address).
pub const TICKET_PARAMETER: &str = "ticket";

/// The tickets of a query. Bytes that are not UTF-8 are replaced, so such a value is no valid
/// ticket.
pub fn tickets(query: Option<&str>) -> Vec<Cow<'_, str>> {
    let pairs = query.unwrap_or_default().split('&');
    let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let is_ticket = |name: &str| percent_decode(name.as_bytes()).eq(TICKET_PARAMETER.bytes());
    let tickets = pairs.filter(|(name, _)| is_ticket(name));
    tickets.map(|(_, value)| percent_decode(value.as_bytes()).decode_utf8_lossy()).collect()
}

/// The credentials of a request. `tickets` are the tickets of the query. `cookie` is the name of
/// the cookie that holds a token, or `None` if the cookies of this request do not count.
pub fn presented<'a>(
    headers: &'a HeaderMap,
    tickets: &'a [Cow<'_, str>],
    cookie: Option<&str>,
) -> Presented<'a> {
    let values = headers.get_all(header::AUTHORIZATION);
    let presented = values
        .iter()
        .fold(Presented::new(), |presented, value| presented.authorization(value.as_bytes()));
    let presented = tickets.iter().fold(presented, |presented, ticket| presented.ticket(ticket));
    let Some(name) = cookie else { return presented };
    let cookies = headers.get_all(header::COOKIE);
    cookies.iter().fold(presented, |presented, value| presented.cookie(value.as_bytes(), name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tickets_are_found_among_other_parameters() {
        assert_eq!(tickets(Some("topic=a&ticket=x%2Dy&ticket")), ["x-y", ""]);
        assert_eq!(tickets(Some("%74icket=x&tickets=y&a=ticket=z")), ["x"]);
        assert_eq!(tickets(Some("ticket=%ff")), ["\u{fffd}"]);
        assert_eq!(tickets(Some("ticket=a=b")), ["a=b"]);
        assert!(tickets(None).is_empty() && tickets(Some("")).is_empty());
    }
}
