//! The settings of connections and of new streams, at real servers.

use std::{fs, path::Path};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use downlink_cluster::{Journal as _, JournalError};
use downlink_nats::{ConnectSettings, Credentials, HubError, JetStream, Tls};
use nkeys::KeyPair;
use serde_json::{Value, json};

use crate::servers::{HUB, STREAM, Server, eventually, replicas};

fn with(server: &Server, credentials: Credentials) -> JetStream {
    let servers = vec![server.url()];
    let settings = ConnectSettings { servers, credentials, ..ConnectSettings::default() };
    JetStream::new(settings, STREAM).unwrap()
}

#[tokio::test]
async fn a_user_needs_the_right_password() {
    let more = "authorization { user: ann, password: right }";
    let Some(server) = Server::start(more).await else { return };
    let user = |password: &str| Credentials::UserAndPassword {
        user: "ann".into(),
        password: password.into(),
    };
    with(&server, user("right")).create_stream(&replicas(1), HUB).await.unwrap();
    for wrong in [user("wrong"), Credentials::None, Credentials::Token("right".into())] {
        let mut journal = with(&server, wrong);
        assert_eq!(journal.open().await, Err(JournalError::Unavailable));
        let error = journal.connect_error().unwrap();
        assert!(error.contains("authorization"), "{error}");
    }
}

#[tokio::test]
async fn a_token_is_sent() {
    let Some(server) = Server::start("authorization { token: right }").await else { return };
    let token = |token: &str| Credentials::Token(token.into());
    with(&server, token("right")).create_stream(&replicas(1), HUB).await.unwrap();
    let wrong = with(&server, token("wrong")).create_stream(&replicas(1), HUB).await;
    assert!(matches!(wrong, Err(HubError::Unreachable { .. })), "{wrong:?}");
}

/// A server that answers pings may be of no use, for example because it is cut off from the other
/// servers. In this test, the users of the first server have no JetStream.
#[tokio::test]
async fn a_journal_leaves_a_server_that_gives_no_usable_answer() {
    let more = "accounts { A { users: [ { user: ann, password: x } ] } }\nno_auth_user: ann";
    let Some(useless) = Server::start(more).await else { return };
    let Some(useful) = Server::start("").await else { return };
    with(&useful, Credentials::None).create_stream(&replicas(1), HUB).await.unwrap();
    let settings = ConnectSettings {
        servers: vec![useless.url(), useful.url()],
        ..ConnectSettings::default()
    };
    let mut journal = JetStream::new(settings, STREAM).unwrap();
    assert_eq!(journal.open().await, Err(JournalError::Unavailable));
    assert_eq!(journal.connect_error(), None, "the server can be reached");
    eventually("the journal is open", async || journal.open().await.ok()).await;
}

/// A JWT that `issuer` has signed for the holder of the key `subject`.
fn jwt(issuer: &KeyPair, subject: &KeyPair, kind: &str, mut claims: Value) -> String {
    (claims["type"], claims["version"]) = (json!(kind), json!(2));
    let claims = json!({ "jti": "test", "iat": 1_700_000_000, "iss": issuer.public_key(),
        "sub": subject.public_key(), "name": kind, "nats": claims });
    let header = json!({ "typ": "JWT", "alg": "ed25519-nkey" });
    let text = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".");
    let signature = URL_SAFE_NO_PAD.encode(issuer.sign(text.as_bytes()).unwrap());
    format!("{text}.{signature}")
}

/// A file as `nsc` writes it, with the JWT and the seed of this user.
fn credentials_file(path: &Path, account: &KeyPair, user: &KeyPair) {
    let jwt = jwt(account, user, "user", json!({ "subs": -1, "data": -1, "payload": -1 }));
    let seed = user.seed().unwrap();
    let text = format!(
        "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    );
    fs::write(path, text).unwrap();
}

/// The server trusts an operator. The operator has signed the account, and the account has signed
/// the user. The client reads the file for each connection.
#[tokio::test]
async fn a_credentials_file_works_only_for_a_user_of_a_known_account() {
    let operator = KeyPair::new_operator();
    let [system, account, other] = [(); 3].map(|()| KeyPair::new_account());
    let limits = json!({ "subs": -1, "data": -1, "payload": -1, "conn": -1, "leaf": -1,
        "imports": -1, "exports": -1, "wildcards": true, "mem_storage": -1, "disk_storage": -1,
        "streams": -1, "consumer": -1 });
    let no_jetstream = json!({ "subs": -1, "data": -1, "payload": -1, "conn": -1, "leaf": -1,
        "imports": -1, "exports": -1, "wildcards": true });
    let of = |account: &KeyPair, limits: &Value| {
        let jwt = jwt(&operator, account, "account", json!({ "limits": limits }));
        format!("{}: {jwt}", account.public_key())
    };
    let more = format!(
        "operator: {}\nsystem_account: {}\nresolver: MEMORY\nresolver_preload: {{\n{}\n{}\n}}",
        jwt(&operator, &operator, "operator", json!({})),
        system.public_key(),
        of(&system, &no_jetstream),
        of(&account, &limits),
    );
    let Some(server) = Server::start(&more).await else { return };
    let (path, user) = (server.file("user.creds"), KeyPair::new_user());
    // The server does not know this account.
    credentials_file(&path, &other, &user);
    let mut journal = with(&server, Credentials::File(path.clone()));
    assert_eq!(journal.open().await, Err(JournalError::Unavailable));
    let error = journal.connect_error().unwrap();
    assert!(error.contains("authorization"), "{error}");
    credentials_file(&path, &account, &user);
    journal.create_stream(&replicas(1), HUB).await.unwrap();
    assert!(journal.open().await.is_ok());
}

#[tokio::test]
async fn a_missing_credentials_file_is_named() {
    let Some(server) = Server::start("").await else { return };
    let mut journal = with(&server, Credentials::File("/no/such/file".into()));
    assert_eq!(journal.open().await, Err(JournalError::Unavailable));
    let error = journal.connect_error().unwrap();
    assert!(error.contains("No such file"), "{error}");
}

#[tokio::test]
async fn tls_needs_the_certificates_of_both_sides() {
    let Some(server) = Server::start_with_tls().await else { return };
    let with_tls = |tls: Tls| {
        let servers = vec![server.url()];
        let settings = ConnectSettings { servers, tls, ..ConnectSettings::default() };
        JetStream::new(settings, STREAM).unwrap()
    };
    let tls = Tls {
        root_certificates: Some(server.file("cert.pem")),
        client_certificate: Some((server.file("cert.pem"), server.file("key.pem"))),
        ..Tls::default()
    };
    let mut journal = with_tls(tls.clone());
    journal.create_stream(&replicas(1), HUB).await.unwrap();
    assert!(journal.open().await.is_ok());
    for wrong in [
        Tls { root_certificates: None, ..tls.clone() },
        Tls { client_certificate: None, ..tls.clone() },
    ] {
        let mut journal = with_tls(wrong);
        assert_eq!(journal.open().await, Err(JournalError::Unavailable));
        assert!(journal.connect_error().is_some());
    }
}

/// A client with this setting never sends credentials to a server without TLS.
#[tokio::test]
async fn a_client_that_requires_tls_refuses_a_server_without_it() {
    let Some(server) = Server::start("").await else { return };
    let settings = ConnectSettings {
        servers: vec![server.url()],
        tls: Tls { is_required: true, ..Tls::default() },
        ..ConnectSettings::default()
    };
    let mut journal = JetStream::new(settings, STREAM).unwrap();
    assert_eq!(journal.open().await, Err(JournalError::Unavailable));
    assert!(journal.connect_error().is_some());
}
