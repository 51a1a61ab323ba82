//! A parsed HTTP answer.

use serde_json::Value;

/// The answer to one request.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The head in lower case; each line ends with `\r\n`.
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn parse(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").expect("a whole head");
        let head = format!("{}\r\n", head.to_ascii_lowercase());
        let status = status_of(&head);
        let chunked = head.contains("\r\ntransfer-encoding: chunked\r\n");
        let body = if chunked { dechunk(body) } else { body.to_owned() };
        Self { status, head, body }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let start = self.head.find(&format!("\r\n{name}: "))? + name.len() + 4;
        self.head[start..].split("\r\n").next()
    }

    /// Asserts that the request was successful, and returns the body as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.status, 200, "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/json"));
        assert_eq!(self.header("cache-control"), Some("no-store"));
        assert!(self.body.ends_with("}\n"), "the body must end with a line break: {self:?}");
        serde_json::from_str(&self.body).expect("JSON")
    }

    /// Asserts that this is a problem document with this status, and returns its detail. The detail
    /// must consist of sentences, so it begins with a capital letter or with a quoted part of the
    /// request.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        assert!(self.body.ends_with("}\n"), "the body must end with a line break: {self:?}");
        let problem: Value = serde_json::from_str(&self.body).expect("JSON");
        assert_eq!(problem["status"], status);
        assert_eq!(problem["type"], "about:blank");
        assert!(problem["title"].is_string());
        let detail = problem["detail"].as_str().expect("a detail");
        let first = detail.chars().next().expect("the detail is not empty");
        assert!(first.is_uppercase() || first.is_ascii_digit() || first == '"', "{detail}");
        assert!(detail.ends_with('.') && !detail.ends_with(".."), "{detail}");
        assert!(!detail.contains(".. ") && detail.len() < 600, "{detail}");
        detail.to_owned()
    }
}

pub(crate) fn status_of(head: &str) -> u16 {
    let status = head.split(' ').nth(1).expect("a status line");
    status.parse().unwrap_or_else(|_| panic!("no status in {head:?}"))
}

fn dechunk(mut body: &str) -> String {
    let mut whole = String::new();
    loop {
        let (size, rest) = body.split_once("\r\n").expect("a chunk's size");
        let size = usize::from_str_radix(size, 16).expect("a hexadecimal number");
        if size == 0 {
            return whole;
        }
        whole.push_str(&rest[..size]);
        body = &rest[size + 2..];
    }
}
