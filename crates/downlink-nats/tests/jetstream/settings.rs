//! The settings of connections and of new streams, at real servers.

use downlink_cluster::{Journal as _, JournalError};
use downlink_nats::{ConnectSettings, Credentials, HubError, JetStream, Tls};

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
/// servers. Here its users have no JetStream.
#[tokio::test]
async fn a_server_that_is_alive_but_gives_no_usable_answer_is_left() {
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
async fn required_tls_is_not_left_out() {
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
