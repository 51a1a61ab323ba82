//! Tests with arbitrary bytes as credentials. The crate never panics, and accepts only valid
//! credentials.

use std::time::Duration;

use downlink_access::{
    Access, AccessOptions, Grant, KeyId, KeySet, Presented, Revocation, Secret, TicketKeys,
    TokenGrant, TokenKeys, Verified, inspect,
};
use jsonwebtoken::Algorithm;
use proptest::prelude::*;

use crate::support::*;

const TOKEN: &str = r#"{"alg":"HS256","typ":"JWT","kid":"k"}"#;

fn access() -> Access {
    Access::new(AccessOptions {
        tokens: Some(hmac_tokens()),
        tickets: Some(TicketKeys::new("shop", &[secret()]).unwrap()),
        ..AccessOptions::default()
    })
}

/// Text that looks like JSON, so that parsers do not already fail at the first byte.
fn json() -> impl Strategy<Value = String> {
    let names = ["subscribe", "publish", "client", "until", "keys", "kty", "crv", "x", "n", "alg"];
    let atoms = prop_oneof![
        Just("null".to_owned()),
        any::<f64>().prop_map(|number| format!("{number:e}")),
        any::<u64>().prop_map(|number| number.to_string()),
        "[ -~]{0,8}".prop_map(|text| serde_json::json!(text).to_string()),
        prop::sample::select(vec!["RSA", "EC", "OKP", "P-256", "Ed25519", "a/*", "AQAB"])
            .prop_map(|text| format!("{text:?}")),
    ];
    atoms.prop_recursive(4, 32, 6, move |inner| {
        let member = (prop::sample::select(names.to_vec()), inner.clone());
        let member = member.prop_map(|(name, value)| format!("{name:?}:{value}"));
        prop_oneof![
            prop::collection::vec(inner, 0..6).prop_map(|list| format!("[{}]", list.join(","))),
            prop::collection::vec(member, 0..6).prop_map(|list| format!("{{{}}}", list.join(","))),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn any_file_or_revocation_causes_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let _ = Secret::from_file_bytes(&bytes);
        let _ = TokenKeys::new().public(&bytes);
        prop_assert!(KeySet::parse(&bytes).is_err());
        let _ = Grant::from_json(&bytes);
        if let Some(entry) = Revocation::from_bytes(&bytes) {
            prop_assert_eq!(entry.to_bytes(), bytes);
        }
    }

    #[test]
    fn any_public_key_causes_no_panic(der in prop::collection::vec(any::<u8>(), 0..300)) {
        use base64::Engine as _;
        let text = base64::prelude::BASE64_STANDARD.encode(&der);
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n");
        let _ = TokenKeys::new().public(pem.as_bytes());
    }

    #[test]
    fn any_grant_or_key_set_causes_no_panic(text in json()) {
        let _ = Grant::from_json(text.as_bytes());
        let set = format!(r#"{{"keys":[{text}]}}"#);
        prop_assert!(KeySet::parse(set.as_bytes()).is_err());
    }

    #[test]
    fn any_signed_json_causes_no_panic(header in json(), body in json()) {
        let claims = claims(&format!(r#","downlink":{body}"#));
        for (header, claims) in [(&*header, &*claims), (TOKEN, &claims), (TOKEN, &body)] {
            let token = token(header, claims, &hmac(), Algorithm::HS256);
            let _ = hmac_tokens().verify(&token, now());
            let _ = inspect(&token);
        }
    }

    #[test]
    fn any_name_causes_no_panic(text in "\\PC{0,40}") {
        let _ = TokenGrant::parse(&text);
        let _ = inspect(&text);
        if let Some(id) = KeyId::parse(&text) {
            prop_assert_eq!(id.to_string(), text.to_lowercase());
        }
    }

    #[test]
    fn credentials_of_random_bytes_are_refused(
        bytes in prop::collection::vec(any::<u8>(), 0..80),
        text in "[A-Za-z0-9_.-]{0,120}",
    ) {
        let access = access();
        let header = [b"Bearer ".as_slice(), &bytes].concat();
        let bearer = Presented::new().authorization(&header);
        prop_assert!(access.verify(&bearer, now()).is_err());
        prop_assert!(access.verify(&Presented::new().ticket(&text), now()).is_err());
        let cookie = Presented::new().cookie(&header, "Bearer ").cookie(&bytes, "c");
        let _ = cookie.chosen();
    }

    #[test]
    fn a_token_with_any_changed_byte_is_refused(at in 0usize..1_000, to in "[A-Za-z0-9_.-]") {
        let right = hs256(&claims(r#","sub":"ada""#));
        let at = at % right.len();
        let changed = format!("{}{to}{}", &right[..at], &right[at + 1..]);
        let is_right = changed == right;
        prop_assert_eq!(hmac_tokens().verify(&changed, now()).is_ok(), is_right);
    }

    #[test]
    fn every_ticket_opens_with_the_content_that_was_sealed(
        names in prop::collection::vec("[a-zé]{1,20}(/[a-z]{1,5}){0,3}(/\\*)?", 0..20),
        of in prop::option::of("[ -~é]{1,40}"),
        hears in any::<bool>(),
        seconds in 1u64..3_600,
    ) {
        let issuer = Verified::trusted(Grant::app().with_hear_everyone(hears), now());
        let topics: Vec<_> = names.iter().map(|name| selector(name)).collect();
        let of = of.map(|of| client(&of));
        let lifetime = Duration::from_secs(seconds);
        let (ticket, end) = access().issue(&issuer, topics.clone(), of.clone(), lifetime).unwrap();
        let opened = access().verify(&Presented::new().ticket(&ticket), now()).unwrap();
        let grant = opened.grant();
        prop_assert_eq!(grant.subscribe(), topics);
        prop_assert_eq!(grant.client(), of.as_ref());
        prop_assert_eq!(grant.hear_everyone(), hears);
        prop_assert_eq!(end, now().after(lifetime));
        prop_assert_eq!(grant.until(), Some(end));
    }
}
