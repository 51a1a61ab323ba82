//! The header of the PROXY protocol, in which a trusted proxy names the address of its client.
//!
//! The header comes before the first request. The text form (version 1) and the binary form
//! (version 2) are supported. A proxy that connects for itself, such as for a health check, sends
//! `LOCAL` or `UNKNOWN`. In this case, the address of the proxy itself counts. The additional
//! fields of version 2 (TLVs) and the destination are ignored. This module finds the end of the
//! header and bounds its length. The crate `ppp` parses the complete header.

use std::io;
use std::net::SocketAddr;

use ppp::{v1, v2};
use tokio::io::{AsyncRead, AsyncReadExt};

/// The maximum length of a header of version 1, with its line end. The protocol defines this number.
const TEXT_BYTES_MAX: usize = 107;

/// The length of the fixed part of a header of version 2. The last two bytes are the length of the
/// rest.
const BINARY_START_BYTES: usize = 16;

/// The maximum length of the addresses and the additional fields of a header of version 2.
///
/// The largest addresses take 216 bytes, and the fields that proxies send (names, certificates,
/// ids) take some hundred bytes. With half the size, a long name in a certificate might not fit.
/// Twice the size would only let a broken proxy occupy more memory.
pub const PROXY_HEADER_BYTES_MAX: usize = 4_096;

/// The first bytes of a header of version 1.
const TEXT_PREFIX: &[u8] = b"PROXY ";

/// The end of a header of version 1.
const LINE_END: &[u8] = b"\r\n";

/// The header at the beginning of a connection.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct ProxyHeader {
    /// The address of the proxy's client. `None` if the proxy connects for itself, or if its client
    /// has no IP address.
    pub(super) client: Option<SocketAddr>,
    /// The bytes after the header that were read together with it.
    pub(super) rest: Vec<u8>,
}

/// The error of a connection that does not begin with a valid header.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProxyHeaderError {
    #[error("this connection does not begin with a header of the PROXY protocol")]
    Missing,
    #[error("the header of the PROXY protocol is longer than {max} bytes")]
    TooLong { max: usize },
    #[error("the header of the PROXY protocol is invalid")]
    InvalidText(#[source] v1::BinaryParseError),
    #[error("the header of the PROXY protocol is invalid")]
    InvalidBinary(#[source] v2::ParseError),
    /// The peer closed the connection before the end of the header, as some health checks do.
    #[error("the connection ended before the first request")]
    Ended(#[source] io::Error),
}

/// Reads the header at the beginning of a connection.
///
/// # Cancel safety
///
/// If the future is dropped, the input that it has read is lost.
pub(super) async fn read_header<Io>(io: &mut Io) -> Result<ProxyHeader, ProxyHeaderError>
where
    Io: AsyncRead + Unpin,
{
    let mut input = Vec::new();
    loop {
        if let Some((client, len)) = parse(&input)? {
            return Ok(ProxyHeader { client, rest: input.split_off(len) });
        }
        let mut bytes = [0; 256];
        match io.read(&mut bytes).await {
            Ok(0) => return Err(ProxyHeaderError::Ended(io::ErrorKind::UnexpectedEof.into())),
            Ok(read) => input.extend_from_slice(&bytes[..read]),
            Err(error) => return Err(ProxyHeaderError::Ended(error)),
        }
    }
}

/// The client and the length of the header at the beginning of the input. `None` if the header is
/// not complete.
fn parse(input: &[u8]) -> Result<Option<(Option<SocketAddr>, usize)>, ProxyHeaderError> {
    if begins_with(input, v2::PROTOCOL_PREFIX) {
        return parse_binary(input);
    }
    if begins_with(input, TEXT_PREFIX) {
        return parse_text(input);
    }
    Err(ProxyHeaderError::Missing)
}

/// Whether the input begins with the prefix. Input that is shorter than the prefix only has to be
/// the beginning of the prefix.
fn begins_with(input: &[u8], prefix: &[u8]) -> bool {
    let len = input.len().min(prefix.len());
    input[..len] == prefix[..len]
}

fn parse_text(input: &[u8]) -> Result<Option<(Option<SocketAddr>, usize)>, ProxyHeaderError> {
    let line = &input[..input.len().min(TEXT_BYTES_MAX)];
    let Some(end) = line.windows(LINE_END.len()).position(|bytes| bytes == LINE_END) else {
        return match line.len() < TEXT_BYTES_MAX {
            true => Ok(None),
            false => Err(ProxyHeaderError::TooLong { max: TEXT_BYTES_MAX }),
        };
    };
    let len = end + LINE_END.len();
    let header = v1::Header::try_from(&line[..len]).map_err(ProxyHeaderError::InvalidText)?;
    let client = match header.addresses {
        v1::Addresses::Unknown => None,
        v1::Addresses::Tcp4(tcp) => Some((tcp.source_address, tcp.source_port).into()),
        v1::Addresses::Tcp6(tcp) => Some((tcp.source_address, tcp.source_port).into()),
    };
    Ok(Some((client, len)))
}

fn parse_binary(input: &[u8]) -> Result<Option<(Option<SocketAddr>, usize)>, ProxyHeaderError> {
    let Some([.., high, low]) = input.get(..BINARY_START_BYTES) else { return Ok(None) };
    let rest = usize::from(u16::from_be_bytes([*high, *low]));
    if rest > PROXY_HEADER_BYTES_MAX {
        return Err(ProxyHeaderError::TooLong { max: PROXY_HEADER_BYTES_MAX });
    }
    let len = BINARY_START_BYTES + rest;
    let Some(header) = input.get(..len) else { return Ok(None) };
    let header = v2::Header::try_from(header).map_err(ProxyHeaderError::InvalidBinary)?;
    let client = match (header.command, header.addresses) {
        (v2::Command::Local, _) => None,
        (v2::Command::Proxy, v2::Addresses::IPv4(tcp)) => {
            Some((tcp.source_address, tcp.source_port).into())
        }
        (v2::Command::Proxy, v2::Addresses::IPv6(tcp)) => {
            Some((tcp.source_address, tcp.source_port).into())
        }
        (v2::Command::Proxy, v2::Addresses::Unix(_) | v2::Addresses::Unspecified) => None,
    };
    Ok(Some((client, len)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads a header from input that arrives in one piece and then ends.
    fn read(input: &[u8]) -> Result<ProxyHeader, String> {
        let mut input = input;
        let read = futures_util::FutureExt::now_or_never(read_header(&mut input));
        read.expect("the input is in memory").map_err(|error| error.to_string())
    }

    fn client(text: &str) -> Option<SocketAddr> {
        Some(text.parse().expect("the text is an address"))
    }

    /// A header of version 2. The first byte of `start` is the version with the command. The second
    /// byte is the address family with the protocol.
    fn binary(start: [u8; 2], rest: &[u8]) -> Vec<u8> {
        let len = u16::try_from(rest.len()).expect("the rest is short");
        [v2::PROTOCOL_PREFIX, &start, &len.to_be_bytes(), rest].concat()
    }

    const IPV4: [u8; 12] = [192, 0, 2, 1, 192, 0, 2, 9, 0x30, 0x39, 0, 80];

    #[test]
    fn a_text_header_names_the_client() {
        for (text, expected) in [
            ("PROXY TCP4 192.0.2.1 192.0.2.9 12345 80\r\n", client("192.0.2.1:12345")),
            ("PROXY TCP6 2001:db8::1 2001:db8::9 12345 80\r\n", client("[2001:db8::1]:12345")),
            ("PROXY TCP6 ::ffff:192.0.2.1 ::1 1 80\r\n", client("[::ffff:192.0.2.1]:1")),
            ("PROXY UNKNOWN\r\n", None),
            ("PROXY UNKNOWN 2001:db8::1 2001:db8::9 12345 80\r\n", None),
        ] {
            for rest in ["", "GET / HTTP/1.1\r\n"] {
                let header = ProxyHeader { client: expected, rest: rest.into() };
                assert_eq!(read(format!("{text}{rest}").as_bytes()), Ok(header));
            }
        }
    }

    #[test]
    fn a_binary_header_names_the_client() {
        let ipv6 = [&[0x20, 1, 0xd, 0xb8][..], &[0; 11], &[1], &[0; 16], &IPV4[8..]].concat();
        let fields = [&IPV4[..], &[4, 0, 2, 0, 0], &[0xe0, 0, 1, 7]].concat();
        for (start, rest, expected) in [
            ([0x21, 0x11], &IPV4[..], client("192.0.2.1:12345")),
            ([0x21, 0x11], &fields, client("192.0.2.1:12345")),
            ([0x21, 0x21], &ipv6, client("[2001:db8::1]:12345")),
            ([0x21, 0x31], &[1; 216], None),
            ([0x21, 0x00], &[], None),
            ([0x20, 0x00], &[], None),
            ([0x20, 0x11], &IPV4, None),
            ([0x21, 0x00], &[0xff; PROXY_HEADER_BYTES_MAX], None),
        ] {
            let header = [binary(start, rest), b"GET".to_vec()].concat();
            assert_eq!(read(&header), Ok(ProxyHeader { client: expected, rest: b"GET".into() }));
        }
    }

    #[test]
    fn input_that_is_not_a_header_is_refused() {
        for (input, reason) in [
            (&b"GET / HTTP/1.1\r\n"[..], "does not begin"),
            (b"PROXYTCP4", "does not begin"),
            (b"proxy TCP4", "does not begin"),
            (b"\r\n\r\n\r\n", "does not begin"),
            (b"PROXY TCP4 192.0.2.1 192.0.2.9 12345\r\n", "invalid"),
            (b"PROXY TCP4 192.0.2.1 192.0.2.9 12345 80 1\r\n", "invalid"),
            (b"PROXY TCP4 192.0.2.1 192.0.2.9 65536 80\r\n", "invalid"),
            (b"PROXY TCP4 192.0.2.1 192.0.2.9 1 80\rX\r\n", "invalid"),
            (b"PROXY TCP4 2001:db8::1 2001:db8::9 1 80\r\n", "invalid"),
            (b"PROXY TCP4 192.0.2.\xff 192.0.2.9 1 80\r\n", "invalid"),
            (b"PROXY UDP4 192.0.2.1 192.0.2.9 1 80\r\n", "invalid"),
            (b"PROXY \r\n", "invalid"),
            (b"PROXY TCP4 192.0.2.1", "ended"),
            (b"\r\n\r\n\0\r\nQUIT\n\x21", "ended"),
            (b"", "ended"),
            (&binary([0x11, 0x11], &IPV4), "invalid"),
            (&binary([0x22, 0x11], &IPV4), "invalid"),
            (&binary([0x21, 0x41], &IPV4), "invalid"),
            (&binary([0x21, 0x13], &IPV4), "invalid"),
            (&binary([0x21, 0x11], &IPV4[..11]), "invalid"),
            (&binary([0x21, 0x11], &[0; PROXY_HEADER_BYTES_MAX + 1]), "longer than 4096"),
            (&[b"PROXY UNKNOWN ".repeat(8), b"\r\n".to_vec()].concat(), "longer than 107"),
        ] {
            let error = read(input).expect_err("the input is not a header");
            assert!(error.contains(reason), "{input:?}: {error}");
        }
    }

    /// A header may have exactly the maximum length.
    #[test]
    fn the_longest_text_header_is_accepted() {
        let address = ["ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"; 2].join(" ");
        let longest = format!("PROXY UNKNOWN {address} 65535 65535\r\n");
        assert_eq!(longest.len(), TEXT_BYTES_MAX);
        assert_eq!(read(longest.as_bytes()), Ok(ProxyHeader { client: None, rest: vec![] }));
    }

    proptest! {
        /// For the beginning of an input, `parse` gives the same result as for the whole input, or
        /// says that the header is incomplete. The length of an incomplete header is bounded.
        #[test]
        fn the_result_does_not_depend_on_where_the_input_is_cut(
            start in prop::sample::select(vec![
                &b"PROXY TCP4 192.0.2.1 192.0.2.9 1 80\r\n"[..], b"PROXY ", b"PROXY UNKNOWN\r\nx",
                b"\r\n\r\n\0\r\nQUIT\n", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c", b"",
            ]),
            rest in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let input = [start, &rest].concat();
            let whole = parse(&input);
            for cut in 0..input.len() {
                match (parse(&input[..cut]), &whole) {
                    (Ok(None), _) => {}
                    (Ok(found), Ok(whole)) => prop_assert_eq!(&found, whole),
                    (Err(found), Err(whole)) => prop_assert_eq!(found.to_string(), whole.to_string()),
                    (found, whole) => panic!("{found:?} but {whole:?} for {input:?}"),
                }
            }
            if let Ok(None) = whole {
                prop_assert!(input.len() < BINARY_START_BYTES + PROXY_HEADER_BYTES_MAX);
            }
        }
    }
}
