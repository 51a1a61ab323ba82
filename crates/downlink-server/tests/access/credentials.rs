//! Makes keys, tokens and tickets. Each is valid or has exactly one fault.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use downlink::hub::{ClientId, Timestamp, TopicSelector};
use downlink_access::{Access, AccessOptions, KeyId, KeyRole, Keys, Presented, Secret, TicketKeys};
use jsonwebtoken::{Algorithm, EncodingKey, crypto::sign};
use serde_json::{Value, json};

use crate::program::Folder;

pub(crate) const ISSUER: &str = "https://issuer.example";
pub(crate) const AUDIENCE: &str = "downlink";

/// The client of the ordinary tokens.
pub(crate) const ADA: &str = "ada";
/// The client whose credentials the tests in `table.rs` revoke.
pub(crate) const EVE: &str = "eve";

/// The topics that ordinary tokens and tickets cover.
pub(crate) const ROOMS: &str = "rooms/*";

const RS256_PUBLIC: &str = include_str!("../../../downlink-access/tests/fixtures/rs256.public.pem");
const ES256_PUBLIC: &str = include_str!("../../../downlink-access/tests/fixtures/es256.public.pem");

/// The key that signs a token.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Signer {
    Rs256,
    Es256,
    Hs256,
    /// A good key that the server does not know.
    Es384,
    /// An attack: the token is signed with HS256, and the secret is the public RSA key. A verifier
    /// that lets the token choose the algorithm for a key would accept the token.
    PublicKeyAsSecret,
}

impl Signer {
    fn sign(self, secret: &Secret, kid: Option<&str>, claims: &Value) -> String {
        macro_rules! der {
            ($name:literal) => {
                include_bytes!(concat!("../../../downlink-access/tests/fixtures/", $name))
            };
        }
        let (name, algorithm, key) = match self {
            Self::Rs256 => {
                ("RS256", Algorithm::RS256, EncodingKey::from_rsa_der(der!("rs256.private.der")))
            }
            Self::Es256 => {
                ("ES256", Algorithm::ES256, EncodingKey::from_ec_der(der!("es256.private.der")))
            }
            Self::Es384 => {
                ("ES384", Algorithm::ES384, EncodingKey::from_ec_der(der!("es384.private.der")))
            }
            Self::Hs256 => ("HS256", Algorithm::HS256, hmac(secret.text().as_bytes())),
            Self::PublicKeyAsSecret => ("HS256", Algorithm::HS256, hmac(RS256_PUBLIC.as_bytes())),
        };
        let message = message(name, kid, claims);
        let signature = sign(message.as_bytes(), &key, algorithm).expect("the key fits");
        format!("{message}.{signature}")
    }
}

fn hmac(secret: &[u8]) -> EncodingKey {
    EncodingKey::from_secret(secret).expect("the secret is long enough")
}

/// The header and the claims of a token, without its signature.
fn message(algorithm: &str, kid: Option<&str>, claims: &Value) -> String {
    let mut header = json!({ "alg": algorithm, "typ": "JWT" });
    if let Some(kid) = kid {
        header["kid"] = kid.into();
    }
    format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims.to_string()))
}

pub(crate) fn now() -> Timestamp {
    SystemTime::now().into()
}

/// The present time plus `offset`, in seconds since 1970.
fn seconds(offset: i64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is right");
    i64::try_from(now.as_secs()).expect("a small number") + offset
}

/// The claims of a token of this client. The grant is the list of its rights. The token is valid
/// for an hour.
pub(crate) fn claims(client: Option<&str>, grant: Value) -> Value {
    let mut claims = json!({
        "iss": ISSUER,
        "aud": AUDIENCE,
        // The clock of the server may be a little behind that of the test. So the issue time is
        // ten seconds in the past.
        "iat": seconds(-10),
        "exp": seconds(3_600),
        "downlink": grant,
    });
    if let Some(client) = client {
        claims["sub"] = client.into();
    }
    claims
}

/// The grant of an ordinary user.
pub(crate) fn of_a_user() -> Value {
    json!({ "subscribe": [ROOMS], "publish": [ROOMS], "issue": true })
}

/// The grant of an operator.
pub(crate) fn of_an_operator() -> Value {
    json!({
        "subscribe": ["*"],
        "publish": ["*"],
        "publish_clients": true,
        "everyone": true,
        "issue": true,
        "admin": true,
        "follow": true,
    })
}

/// The claims of an operator, with these members added or replaced. A test of a bad token replaces
/// only what is bad, so there is no other reason to refuse the token.
pub(crate) fn operator_but(members: &[(&str, Value)]) -> Value {
    let mut claims = claims(None, of_an_operator());
    for (name, value) in members {
        claims[*name] = value.clone();
    }
    claims
}

/// The claims of a token that expired an hour ago.
pub(crate) fn expired() -> Value {
    operator_but(&[("iat", seconds(-7_200).into()), ("exp", seconds(-3_600).into())])
}

/// The claims of a token that becomes valid in an hour.
pub(crate) fn early() -> Value {
    operator_but(&[("nbf", seconds(3_600).into()), ("exp", seconds(7_200).into())])
}

/// The claims of a token that expires this many seconds from now.
pub(crate) fn for_seconds(client: &str, grant: Value, life: i64) -> Value {
    let mut claims = claims(Some(client), grant);
    claims["exp"] = seconds(life).into();
    claims
}

/// The keys of one server, and the files that the server reads.
pub(crate) struct Credentials {
    pub(crate) publish_key: Secret,
    pub(crate) admin_key: Secret,
    ticket_key: Secret,
    jwt_secret: Secret,
    /// The flags with the files of the keys.
    pub(crate) flags: Vec<String>,
    /// The flags for tokens.
    pub(crate) token_flags: Vec<String>,
}

impl Credentials {
    /// Makes the keys, and writes them to files in this folder.
    pub(crate) fn new(folder: &Folder) -> Self {
        let mut flags = Vec::new();
        let key = |flag: &str, flags: &mut Vec<String>| {
            let secret = Secret::generate().expect("randomness");
            let file = folder.file(&format!("{flag}.key"));
            secret.create_file(file.as_ref()).expect("a new file");
            flags.extend([format!("--{flag}"), file]);
            secret
        };
        let publish_key = key("publish-key-file", &mut flags);
        let admin_key = key("admin-key-file", &mut flags);
        let ticket_key = key("ticket-key-file", &mut flags);
        let mut token_flags = Vec::new();
        let jwt_secret = key("jwt-key-file", &mut token_flags);
        for (name, pem) in [("rs256.pem", RS256_PUBLIC), ("es256.pem", ES256_PUBLIC)] {
            let file = folder.file(name);
            std::fs::write(&file, pem).expect("a new file");
            token_flags.extend(["--jwt-public-key".to_owned(), file]);
        }
        token_flags.extend(["--jwt-issuer", ISSUER, "--jwt-audience", AUDIENCE].map(str::to_owned));
        Self { publish_key, admin_key, ticket_key, jwt_secret, flags, token_flags }
    }

    pub(crate) fn publish_key(&self) -> String {
        self.publish_key.text().to_string()
    }

    pub(crate) fn admin_key(&self) -> String {
        self.admin_key.text().to_string()
    }

    /// The id of the publish key, as `downlink key id` prints it.
    pub(crate) fn publish_key_id(&self) -> KeyId {
        Keys::new().add(KeyRole::Publish, &self.publish_key).expect("a good key")
    }

    pub(crate) fn token(&self, signer: Signer, claims: &Value) -> String {
        signer.sign(&self.jwt_secret, None, claims)
    }

    /// An ordinary token that names its key.
    pub(crate) fn named_token(&self, signer: Signer, kid: &str, client: &str) -> String {
        signer.sign(&self.jwt_secret, Some(kid), &claims(Some(client), of_a_user()))
    }

    /// An ordinary token of this client.
    pub(crate) fn user(&self, client: &str) -> String {
        self.token(Signer::Es256, &claims(Some(client), of_a_user()))
    }

    /// A token with another first character in its signature.
    pub(crate) fn with_a_bad_signature(&self, claims: &Value) -> String {
        let token = self.token(Signer::Rs256, claims);
        let (message, signature) = token.rsplit_once('.').expect("a signature");
        let first = if signature.starts_with('A') { 'B' } else { 'A' };
        format!("{message}.{first}{}", &signature[1..])
    }

    /// A token without a signature. The algorithm in its header is `none`.
    pub(crate) fn unsigned(&self, claims: &Value) -> String {
        format!("{}.", message("none", None, claims))
    }

    /// Makes a good ticket, and tickets with one fault. Each ticket is valid for half an hour from
    /// the time at which it was issued.
    pub(crate) fn tickets(&self) -> Tickets {
        const HOUR: i64 = 3_600_000;
        let (app, key) = (&self.publish_key, &self.ticket_key);
        let other = Secret::generate().expect("randomness");
        Tickets {
            good: ticket(app, HUB, key, ADA, 0),
            unknown: ticket(app, HUB, &other, ADA, 0),
            expired: ticket(app, HUB, key, ADA, -HOUR),
            early: ticket(app, HUB, key, ADA, HOUR),
            of_another_hub: ticket(app, "shop", key, ADA, 0),
            of_another_issuer: ticket(&other, HUB, key, ADA, 0),
            revoked: ticket(app, HUB, key, EVE, -10_000),
        }
    }
}

/// A ticket contains the name of the hub (the log of events) that it is for. The hub of every
/// server has this name.
const HUB: &str = "downlink";

/// Tickets for [`ROOMS`]: a good one, and some with one fault.
pub(crate) struct Tickets {
    pub(crate) good: String,
    /// The server does not know the ticket key of this ticket.
    pub(crate) unknown: String,
    pub(crate) expired: String,
    /// Issued in the future.
    pub(crate) early: String,
    pub(crate) of_another_hub: String,
    /// Another server with the same ticket key issued this ticket to an app that the tested server
    /// does not know.
    pub(crate) of_another_issuer: String,
    pub(crate) revoked: String,
}

/// A ticket from a server whose clock is `moved` milliseconds ahead of the present time.
fn ticket(app: &Secret, hub: &str, key: &Secret, client: &str, moved: i64) -> String {
    let mut keys = Keys::new();
    keys.add(KeyRole::Publish, app).expect("a good key");
    let tickets = TicketKeys::new(hub, std::slice::from_ref(key)).expect("one key");
    let access =
        Access::new(AccessOptions { keys, tickets: Some(tickets), ..AccessOptions::default() });
    let now = now().as_millis().checked_add_signed(moved).expect("after 1970");
    let header = format!("Bearer {}", *app.text());
    let presented = Presented::new().authorization(header.as_bytes());
    let issuer = access.verify(&presented, Timestamp::from_millis(now)).expect("a known key");
    let topics = vec![TopicSelector::parse(ROOMS).expect("a pattern")];
    let client = ClientId::new(client).expect("a client id");
    let issued = access.issue(&issuer, topics, Some(client), Duration::from_secs(30 * 60));
    issued.expect("a key may issue tickets").0
}

/// A text with another character in the middle.
pub(crate) fn tampered(text: &str) -> String {
    let middle = text.len() / 2;
    let other = if text[middle..].starts_with('A') { 'B' } else { 'A' };
    format!("{}{other}{}", &text[..middle], &text[middle + 1..])
}
