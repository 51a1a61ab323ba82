//! Clients with the addresses of an upstream and of a relay. One of the two servers is killed again
//! and again, and each client gets each event once.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
};

use downlink_client::{Delivery, EventSource};
use tokio::sync::mpsc;

use crate::{
    node::{Kept, Node, Site},
    patiently,
};

/// The number of times that a server is killed.
const KILLS: usize = 6;

/// The events that are published before each kill, and between the kill and the next start.
const PUBLISHED: usize = 3;

/// What a client gets, in order.
type Received = mpsc::UnboundedReceiver<String>;

/// An [`EventSource`] of the library.
fn library(nodes: [&Node; 2]) -> Received {
    let [first, second] = nodes.map(|node| node.url("/events?topic=a&start=earliest"));
    let mut source = EventSource::builder(first).add_url(second).build().expect("valid URLs");
    let (sender, received) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(delivery) = source.next().await {
            let data = match delivery {
                Delivery::Event(event) => event.data,
                Delivery::Gap(gap) => format!("{gap:?}"),
                _ => continue,
            };
            if sender.send(data).is_err() {
                return;
            }
        }
    });
    received
}

/// A process with `downlink subscribe`. Dropping this value kills it.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn command_line(nodes: [&Node; 2]) -> (Process, Received) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_downlink"));
    command.args(["subscribe", "--start", "earliest", "a"]);
    for node in nodes {
        command.args(["--url", &node.url("")]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().expect("the program starts");
    let output = BufReader::new(child.stdout.take().expect("a pipe"));
    let (sender, received) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in output.lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    (Process(child), received)
}

/// Waits until the client has got everything that was published.
async fn catch_up(client: &mut Received, seen: &mut Vec<String>, published: &[String]) {
    patiently(async {
        while seen.len() < published.len() {
            seen.push(client.recv().await.expect("the client goes on"));
        }
    })
    .await;
    assert_eq!(seen, published);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_with_two_addresses_get_each_event_once_while_the_servers_are_killed() {
    let _alone = crate::ALONE.lock().await;
    let site = Site::new("clients");
    let mut upstream = site.upstream("upstream", Kept::InStore, &[]);
    upstream.start().await;
    let mut relay = site.relay("relay", upstream.address, Kept::InStore, &[]);
    relay.start_ready().await;
    // The clients begin at different servers.
    let mut of_library = library([&relay, &upstream]);
    let (_process, mut of_command_line) = command_line([&upstream, &relay]);
    let (mut published, mut seen) = (Vec::new(), [Vec::new(), Vec::new()]);
    for kill in 0..KILLS {
        for _ in 0..PUBLISHED {
            published.push(published.len().to_string());
            upstream.publish("a", &published[published.len() - 1]).await;
        }
        catch_up(&mut of_library, &mut seen[0], &published).await;
        catch_up(&mut of_command_line, &mut seen[1], &published).await;
        if kill % 2 == 0 {
            relay.kill();
            for _ in 0..PUBLISHED {
                published.push(published.len().to_string());
                upstream.publish("a", &published[published.len() - 1]).await;
            }
            // Both clients are at the upstream now.
            catch_up(&mut of_library, &mut seen[0], &published).await;
            catch_up(&mut of_command_line, &mut seen[1], &published).await;
            relay.start_ready().await;
        } else {
            upstream.kill();
            upstream.start().await;
            relay.becomes_ready().await;
        }
    }
    published.push("last".to_owned());
    relay.publish("a", "last").await;
    catch_up(&mut of_library, &mut seen[0], &published).await;
    catch_up(&mut of_command_line, &mut seen[1], &published).await;
}
