//! Requests with several credentials, and credentials that a listener does not take.

use crate::{
    cells::PAGE,
    credentials::{Signer, operator_but},
    program::{Folder, Program},
    request::Request,
    site::Site,
};

#[tokio::test]
async fn two_credentials_in_one_request_are_refused() {
    let site =
        Site::of(&["--listen", "127.0.0.1:0", "--cors-origin", PAGE, "--public", "public/*"]);
    let (ada, key) = (site.keys.user("ada"), site.keys.publish_key());
    let issue = Request::post("/tickets?topic=rooms/*", "").bearer(&key);
    let issued = issue.ask(site.public()).await.json();
    let ticket = issued["ticket"].as_str().expect("a ticket");
    let with_ticket = |target: &str| Request::get(format!("{target}&ticket={ticket}"));
    let basic = ("Authorization", "Basic c3RhZ2luZzpwYXNzd29yZA==");
    let rooms = "/events?topic=rooms/1";
    for (request, expected) in [
        (with_ticket(rooms).bearer(&ada), "400 two_credentials"),
        (with_ticket("/events?topic=public/1").bearer(&ada), "400 two_credentials"),
        (with_ticket(rooms).bearer("unknown"), "400 two_credentials"),
        (with_ticket(&format!("{rooms}&ticket={ticket}")), "400 two_credentials"),
        (with_ticket(&format!("{rooms}&%74icket={ticket}")), "400 two_credentials"),
        (Request::get(rooms).bearer(&ada).bearer(&ada), "400 two_credentials"),
        (Request::get(rooms).bearer(&ada).bearer(&key), "400 two_credentials"),
        (Request::post(rooms, "x").bearer(&ada).bearer(&key), "400 two_credentials"),
        // A staging site may need a password (`Authorization: Basic`). This server ignores it.
        (with_ticket(rooms).header(basic.0, basic.1), "200"),
        (Request::get(rooms).bearer(&ada).header(basic.0, basic.1), "200"),
        (Request::get(rooms).header(basic.0, basic.1), "401 token_missing"),
        (Request::get(rooms).header("Authorization", "Bearer"), "401 token_malformed"),
        (Request::get(rooms).header("Authorization", "bearer two words"), "401 token_malformed"),
        (Request::get(rooms).header("authorization", format!("bearer   {ada}")), "200"),
        (with_ticket(rooms).header("Cookie", format!("__Host-downlink={ada}")), "200"),
        // The only credential that a query may have is a ticket.
        (Request::get(format!("{rooms}&authorization={ada}")), "400"),
        (Request::get(format!("{rooms}&ticket={ada}")), "401 token_malformed"),
    ] {
        let answer = request.clone().ask(site.public()).await;
        assert_eq!(answer.outcome(), expected, "{request:?}");
    }
}

#[tokio::test]
async fn the_public_listener_beside_an_admin_listener_takes_no_keys() {
    let site = Site::start(&["--public", "public/*"]);
    for key in [site.keys.publish_key(), site.keys.admin_key()] {
        for request in [
            Request::get("/events?topic=rooms/1"),
            Request::get("/events?topic=public/1"),
            Request::post("/events?topic=rooms/1", "x"),
            Request::post("/events/batch", r#"{"topic":"rooms/1","data":1}"#),
            Request::post("/tickets?topic=rooms/1", ""),
        ] {
            let request = request.bearer(&key);
            let answer = request.ask(site.public()).await;
            assert_eq!(answer.outcome(), "401 key_unknown", "{request:?}");
            assert_eq!(request.ask(site.admin()).await.outcome(), "200", "{request:?}");
        }
    }
    // The public listener accepts a ticket that was issued with a key.
    let ticket = site.ticket("topic=rooms/*").await;
    let with_ticket = Request::get(format!("/events?ticket={ticket}"));
    assert_eq!(with_ticket.ask(site.public()).await.outcome(), "200");
}

#[tokio::test]
async fn a_ticket_gives_only_rights_to_read() {
    let site = Site::start(&[]);
    let ticket = site.ticket("topic=rooms/*&client=ada").await;
    for (method, target) in [
        ("POST", "/events?topic=rooms/1"),
        ("POST", "/tickets?topic=rooms/1"),
        ("POST", "/revoke?client=ada"),
        ("DELETE", "/clients?client=ada"),
        ("GET", "/clients?"),
        ("GET", "/metrics?"),
        ("GET", "/?"),
    ] {
        let request = Request::new(method, format!("{target}&ticket={ticket}"));
        let outcome = request.ask(site.admin()).await.outcome();
        let is_denied = ["403 right_missing", "403 topic_denied"].contains(&&*outcome);
        assert!(is_denied, "{method} {target}: {outcome}");
    }
}

#[tokio::test]
async fn a_server_without_a_shared_secret_accepts_no_hmac_tokens() {
    let folder = Folder::new();
    let site = Site::start(&[]);
    let public_key = site.folder.file("rs256.pem");
    let store = folder.file("downlink.db");
    let program = Program::start(&[
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--store",
        &store,
        "--jwt-public-key",
        &public_key,
        "--jwt-issuer",
        crate::credentials::ISSUER,
        "--jwt-audience",
        crate::credentials::AUDIENCE,
    ]);
    let claims = operator_but(&[]);
    for (signer, expected) in [
        (Signer::PublicKeyAsSecret, "401 algorithm"),
        (Signer::Hs256, "401 algorithm"),
        (Signer::Es256, "401 algorithm"),
        (Signer::Rs256, "200"),
    ] {
        let token = site.keys.token(signer, &claims);
        let answer = Request::get("/metrics").bearer(&token).ask(&program.public).await;
        assert_eq!(answer.outcome(), expected, "{signer:?}");
    }
}
