//! Parses one answer on a connection that may have several answers.

/// An answer. The body does not include the lengths and line ends of HTTP chunks.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Answer {
    pub(crate) status: String,
    /// All headers except for the date, sorted. The names are in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Answer {
    /// Parses the answer at the start of a text. Returns the answer and its length, or `None` if
    /// the answer is incomplete.
    pub(crate) fn parse(text: &str) -> Option<(Self, usize)> {
        let (head, rest) = text.split_once("\r\n\r\n")?;
        let mut lines = head.split("\r\n");
        let status = lines.next()?.to_owned();
        let headers = lines.map(|line| {
            let (name, value) = line.split_once(": ").expect("the line is a header");
            (name.to_ascii_lowercase(), value.to_owned())
        });
        let mut headers: Vec<_> = headers.filter(|(name, _)| name != "date").collect();
        headers.sort();
        let mut answer = Self { status, headers, body: String::new() };
        let body = match answer.header("content-length") {
            Some(length) => {
                answer.body =
                    rest.get(..length.parse().expect("the length is a number"))?.to_owned();
                answer.body.len()
            }
            None if answer.header("transfer-encoding") == Some("chunked") => {
                let (body, len) = unchunked(rest)?;
                answer.body = body;
                len
            }
            None => 0,
        };
        Some((answer, head.len() + 4 + body))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(other, _)| other == name);
        found.next().map(|(_, value)| value.as_str())
    }
}

/// Parses a chunked body. Returns its content, and the number of bytes that the chunks take.
fn unchunked(text: &str) -> Option<(String, usize)> {
    let (mut body, mut at) = (String::new(), 0);
    loop {
        let (digits, rest) = text[at..].split_once("\r\n")?;
        let length =
            usize::from_str_radix(digits, 16).expect("the length of the chunk is a number");
        let chunk = rest.get(..length)?;
        let end = rest.get(length..length + 2)?;
        assert_eq!(end, "\r\n");
        body.push_str(chunk);
        at += digits.len() + 2 + length + 2;
        if length == 0 {
            return Some((body, at));
        }
    }
}
