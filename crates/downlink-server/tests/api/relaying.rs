//! A publisher may send the event stream of another server as a request body, and the server relays
//! the events to its subscribers. The examples are streams of language models as their vendors
//! document them, a stream with an error in the middle, and a stream with repeated ids.

use tokio::io::AsyncWriteExt as _;

use crate::Server;

/// A streamed message, as Anthropic documents it.
const ANTHROPIC: &str = r#"event: message_start
data: {"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","content":[],"model":"claude","stop_reason":null,"usage":{"input_tokens":25,"output_tokens":1}}}

event: content_block_start
data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}

event: ping
data: {"type":"ping"}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hello"}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"!"}}

event: content_block_stop
data: {"type":"content_block_stop","index":0}

event: message_delta
data: {"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":15}}

event: message_stop
data: {"type":"message_stop"}

"#;

/// A streamed message. In the middle of the message, the model's server reports an error.
const WITH_ERROR: &str = r#"event: message_start
data: {"type":"message_start"}

event: error
data: {"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}

event: message_stop
data: {"type":"message_stop"}

"#;

/// A streamed chat completion, as OpenAI documents it. It ends without a blank line.
const OPENAI: &str = r#"data: {"id":"chatcmpl-1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}

data: {"id":"chatcmpl-1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"Hello"},"finish_reason":null}]}

data: {"id":"chatcmpl-1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"Hello"},"finish_reason":null}]}

data: {"id":"chatcmpl-1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}

data: [DONE]
"#;

/// A stream with repeated ids. Its lines end with CRLF.
const REPEATING: &str = "id: 0\r\nevent: tick\r\ndata: 1\r\n\r\nid: 0\r\nevent: tick\r\ndata: 1\r\n\r\nid: 0\r\ndata: 2\r\n\r\n";

/// The type and the data of each event in a stream, as subscribers must get them.
fn blocks(stream: &str) -> Vec<(String, String)> {
    let stream = stream.replace("\r\n", "\n");
    let field = |block: &str, name: &str| {
        block.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned)
    };
    let block = |block: &str| {
        let event_type = field(block, "event: ").unwrap_or_else(|| "message".to_owned());
        let event_type = if event_type == "error" { "upstream.error".into() } else { event_type };
        (event_type, field(block, "data: ").expect("each block has data"))
    };
    stream.split("\n\n").filter(|text| !text.trim().is_empty()).map(block).collect()
}

#[tokio::test]
async fn a_relayed_stream_arrives_once_in_order_and_ends_the_topic() {
    let server = Server::start().await;
    let streams =
        [("anthropic", ANTHROPIC), ("error", WITH_ERROR), ("openai", OPENAI), ("ids", REPEATING)];
    for (name, stream) in streams {
        for piece_bytes in [1, 7, 64, stream.len()] {
            let topic = format!("{name}/{piece_bytes}");
            let mut subscriber = server.subscribe(&format!("topic={topic}")).await;
            let mut io = server.connect().await;
            let head = format!(
                "POST /events?topic={topic}&finish_on_end=true HTTP/1.1\r\nHost: {}\r\n\
                 Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
                server.address
            );
            io.write_all(head.as_bytes()).await.expect("the connection is open");
            for piece in stream.as_bytes().chunks(piece_bytes) {
                let size = format!("{:x}\r\n", piece.len());
                let chunk = [size.as_bytes(), piece, b"\r\n"].concat();
                io.write_all(&chunk).await.expect("the connection is open");
            }
            io.write_all(b"0\r\n\r\n").await.expect("the connection is open");
            let mut seen = Vec::new();
            while let Some(event) = subscriber.next().await {
                seen.push((event.event_type.into_owned(), event.data));
            }
            assert_eq!(seen, blocks(stream), "{topic}");
        }
    }
}
