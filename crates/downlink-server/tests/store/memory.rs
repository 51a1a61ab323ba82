//! Compares two counts of the memory that the history takes: the operating system's count and the
//! server's own count.
#![cfg(target_os = "linux")]

use crate::{
    Folder, Server, patiently,
    ready::{becomes_ready, metric},
};

/// The test publishes until the server counts this many bytes of history, which is a realistic
/// size. With a small history, most of the measured memory would be SQLite's cache.
const COUNTED: f64 = (95 << 20) as f64;

/// The events have 200 bytes of data and are published in large batches. The server returns the
/// memory of the batches to the system only after a while, so the test repeats its measurement
/// until the memory is small enough.
#[tokio::test]
async fn a_history_of_small_events_takes_at_most_30_percent_more_than_counted() {
    let folder = Folder::new("memory");
    let keep_all = ["--retain-events", "1000000", "--retain-bytes", "1000000000"];
    let server = Server::start(&folder.file("x.db"), &keep_all);
    becomes_ready(&server).await;
    let empty = server.resident_bytes();
    let mut counted = 0.0;
    for batch in 0.. {
        let line = format!(r#"{{"topic":"t{}","data":"{}"}}"#, batch % 8, "x".repeat(200));
        let body = format!("{line}\n").repeat(10_000);
        assert_eq!(server.ask("POST", "/events/batch", "", &body).await.status, 200);
        counted = metric(&server, "downlink_bytes_kept").await.parse().expect("a number");
        if counted > COUNTED {
            break;
        }
    }
    patiently(async {
        while (server.resident_bytes() - empty) / counted > 1.3 {
            becomes_ready(&server).await;
        }
    })
    .await;
}
