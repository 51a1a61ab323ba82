//! Tests of the commands with an `https` address, over a real TLS connection. The commands trust
//! the certificates that the system trusts.
//!
//! The folder `tls/` has a certificate for localhost and the certificate's key. Only tests use
//! them.

use std::{io, net::SocketAddr, path::Path, sync::Arc};

use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    },
};

use crate::{Server, downlink, run};

const CERTIFICATE: &[u8] = include_bytes!("tls/certificate.pem");
const KEY: &[u8] = include_bytes!("tls/key.pem");

/// Starts a proxy that accepts TLS connections and forwards them to the server. Returns the address
/// of the proxy.
fn front_of(server: SocketAddr) -> SocketAddr {
    let certificate = CertificateDer::from_pem_slice(CERTIFICATE).expect("PEM");
    let key = PrivateKeyDer::from_pem_slice(KEY).expect("PEM");
    let config = ServerConfig::builder().with_no_client_auth();
    let config =
        config.with_single_cert(vec![certificate], key).expect("the key of the certificate");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.set_nonblocking(true).expect("a socket");
    let address = listener.local_addr().expect("the listener is bound");
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let listener = TcpListener::from_std(listener).expect("a socket");
            while let Ok((peer, _)) = listener.accept().await {
                tokio::spawn(pass(acceptor.clone(), peer, server));
            }
        });
    });
    address
}

async fn pass(acceptor: TlsAcceptor, peer: TcpStream, server: SocketAddr) -> io::Result<()> {
    let mut peer = acceptor.accept(peer).await?;
    let mut server = TcpStream::connect(server).await?;
    tokio::io::copy_bidirectional(&mut peer, &mut server).await.map(drop)
}

#[test]
fn commands_trust_the_certificates_of_the_system() {
    let server = Server::start(&[]);
    let front = front_of(server.address().parse().expect("an address"));
    let url = format!("https://localhost:{}", front.port());
    let trusted = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/tls/certificate.pem");
    let trusting = |arguments: &[&str]| {
        let mut command = downlink(arguments);
        command.env("SSL_CERT_FILE", &trusted);
        run(command, "")
    };
    let published = trusting(&["publish", "--url", &url, "-t", "news", "over tls"]);
    assert_eq!(published.code, Some(0), "{}", published.stderr);
    let topic = format!("{url}/events?topic=news");
    let read = trusting(&["subscribe", "--start", "earliest", "--count", "1", &topic]);
    assert_eq!((read.code, &*read.stdout), (Some(0), "over tls\n"), "{}", read.stderr);

    let distrusted = run(downlink(&["publish", "--url", &url, "-t", "news", "x"]), "");
    assert_eq!(distrusted.code, Some(1));
    assert!(distrusted.stderr.contains("certificate"), "{}", distrusted.stderr);
}
