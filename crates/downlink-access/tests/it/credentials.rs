//! Tests of the credentials in a request. A request may have several credentials, and the tests
//! check which of them the server uses.

use downlink_access::{AccessError, Credential, Presented};

fn cookie(header: &str) -> Result<Option<Credential<'_>>, AccessError> {
    Presented::new().cookie(header.as_bytes(), "__Host-downlink").chosen()
}

fn authorization(value: &str) -> Result<Option<Credential<'_>>, AccessError> {
    Presented::new().authorization(value.as_bytes()).chosen()
}

#[test]
fn a_request_without_credentials_has_none() {
    assert_eq!(Presented::new().chosen(), Ok(None));
}

#[test]
fn the_scheme_may_have_upper_and_lower_case_letters() {
    assert_eq!(authorization("Bearer abc"), Ok(Some(Credential::Bearer("abc"))));
    assert_eq!(authorization("bEARER   abc "), Ok(Some(Credential::Bearer("abc"))));
    assert_eq!(authorization(" Bearer abc"), Ok(Some(Credential::Bearer("abc"))));
}

#[test]
fn schemes_other_than_bearer_are_ignored() {
    assert_eq!(authorization("Basic dTpw"), Ok(None));
    assert_eq!(authorization("BearerX abc"), Ok(None));
    assert_eq!(authorization(""), Ok(None));
    let both = Presented::new().authorization(b"Basic dTpw").ticket("t");
    assert_eq!(both.chosen(), Ok(Some(Credential::Ticket("t"))));
}

#[test]
fn a_broken_bearer_header_is_malformed_and_never_ignored() {
    let broken: [&[u8]; 5] = [b"Bearer", b"Bearer ", b"Bearer a b", b"Bearer \xff", b"Bearer a\tb"];
    for value in broken {
        let presented = Presented::new().authorization(value).cookie(b"c=x", "c");
        assert_eq!(presented.chosen().unwrap_err().code(), "token_malformed", "{value:?}");
    }
}

#[test]
fn a_request_with_two_credentials_is_refused() {
    let bearer = Presented::new().authorization(b"Bearer a");
    assert_eq!(bearer.ticket("t").chosen(), Err(AccessError::TwoCredentials));
    assert_eq!(bearer.authorization(b"Bearer a").chosen(), Err(AccessError::TwoCredentials));
    let tickets = Presented::new().ticket("t").ticket("t");
    assert_eq!(tickets.chosen(), Err(AccessError::TwoCredentials));
    let broken = Presented::new().authorization(b"Bearer").ticket("t");
    assert_eq!(broken.chosen(), Err(AccessError::TwoCredentials));
}

#[test]
fn a_cookie_is_used_only_if_there_is_no_other_credential() {
    let presented = Presented::new().cookie(b"__Host-downlink=c", "__Host-downlink");
    assert!(presented.is_cookie());
    assert_eq!(presented.chosen(), Ok(Some(Credential::Cookie("c"))));
    assert_eq!(presented.ticket("t").chosen(), Ok(Some(Credential::Ticket("t"))));
    assert!(!presented.ticket("t").is_cookie());
}

#[test]
fn the_cookie_is_found_by_its_whole_name() {
    assert_eq!(cookie("a=1; __Host-downlink=c ;b=2"), Ok(Some(Credential::Cookie("c"))));
    assert_eq!(cookie("x__Host-downlink=c; __Host-downlink2=d; __host-downlink=e"), Ok(None));
    assert_eq!(cookie("__Host-downlink"), Ok(None));
}

#[test]
fn two_cookies_with_the_same_name_are_malformed() {
    let error = cookie("__Host-downlink=a; __Host-downlink=b").unwrap_err();
    assert_eq!(error.code(), "token_malformed");
    let headers = Presented::new().cookie(b"c=a", "c").cookie(b"c=a", "c");
    assert_eq!(headers.chosen().unwrap_err().code(), "token_malformed");
    let bytes = Presented::new().cookie(b"c=\xff", "c");
    assert_eq!(bytes.chosen().unwrap_err().code(), "token_malformed");
}

#[test]
fn debug_output_shows_no_credential() {
    let presented = Presented::new().authorization(b"Bearer hunter2").cookie(b"c=hunter3", "c");
    let chosen = presented.chosen().unwrap().unwrap();
    let text = format!("{presented:?} {chosen:?}");
    assert!(!text.contains("hunter"), "{text}");
}

#[test]
fn a_tab_may_follow_the_scheme() {
    assert_eq!(authorization("Bearer\tabc"), Ok(Some(Credential::Bearer("abc"))));
}
