//! Each cell of the tables in `docs/ACCESS.md` is a request to a real server. The answer must have
//! the status and the code that the cell names.

use std::fmt::Write as _;

use crate::{
    cells::{CREDENTIALS, ENDPOINTS, PAGE, Sender},
    credentials::{ADA, Credentials, EVE, ROOMS, Tickets, now},
    program::{Folder, Program},
    request::{Place, Request},
};

const DOCUMENT: &str = include_str!("../../../../docs/ACCESS.md");

/// The number of cells in each table.
const CELLS: usize = 19 * 14;

/// A table of the document.
struct Table {
    columns: Vec<String>,
    rows: Vec<(String, Vec<String>)>,
}

impl Table {
    /// The first table below a heading.
    fn below(heading: &str) -> Self {
        let heading = format!("\n## {heading}\n");
        let (_, section) = DOCUMENT.split_once(&heading).expect("the document has the heading");
        let mut lines = section
            .lines()
            .skip_while(|line| !line.starts_with('|'))
            .take_while(|line| line.starts_with('|'))
            .map(cells_of);
        let columns = lines.next().expect("a table").split_off(1);
        let rows = lines.skip(1).map(|mut cells| {
            let row = cells.remove(0);
            (row, cells)
        });
        let rows = rows.collect();
        Self { columns, rows }
    }

    /// Asserts that the table has exactly the known rows and columns.
    fn check_headings(&self) {
        let rows: Vec<&str> = self.rows.iter().map(|(name, _)| &**name).collect();
        assert_eq!(rows, ENDPOINTS.map(|(name, _)| name));
        assert_eq!(self.columns, CREDENTIALS.map(|(name, _)| name));
        let cells: usize = self.rows.iter().map(|(_, cells)| cells.len()).sum();
        assert_eq!(cells, CELLS, "each row has a cell for each column");
    }
}

/// The cells of one line, without backticks.
fn cells_of(line: &str) -> Vec<String> {
    let line = line.trim().trim_start_matches('|').trim_end_matches('|');
    line.split('|').map(|cell| cell.trim().replace('`', "")).collect()
}

/// Sends the request of each cell below this heading to a listener, and compares the answers.
async fn check(heading: &str, listener: &Place, sender: &Sender) {
    let table = Table::below(heading);
    table.check_headings();
    let mut wrong = String::new();
    for ((row, cells), (_, endpoint)) in table.rows.iter().zip(ENDPOINTS) {
        for ((column, cell), (_, credential)) in table.columns.iter().zip(cells).zip(CREDENTIALS) {
            for request in sender.requests(endpoint, credential) {
                let answer = request.ask(listener).await;
                let outcome = answer.outcome();
                if outcome != *cell {
                    let _ = writeln!(wrong, "{row} with {column}: {outcome}, not {cell}");
                }
                let challenges = answer.header("www-authenticate").is_some();
                assert_eq!(challenges, answer.status == 401, "{row} with {column}: {answer:?}");
            }
        }
    }
    assert!(wrong.is_empty(), "{heading}:\n{wrong}");
}

/// Revokes the credentials of [`EVE`].
async fn revoke(listener: &Place, keys: &Credentials) {
    let revoke = Request::post(format!("/revoke?client={EVE}"), "").bearer(&keys.admin_key());
    let revoked = revoke.ask(listener).await;
    assert_eq!(revoked.status, 200, "{revoked:?}");
}

/// A production server.
struct Production {
    program: Program,
    sender: Sender,
    /// The server uses the files in this folder.
    _folder: Folder,
}

impl Production {
    /// Starts a server with this admin listener. In its address, `{folder}` is the folder of the
    /// test.
    async fn start(admin: Option<&str>) -> Self {
        let folder = Folder::new();
        let keys = Credentials::new(&folder);
        let store = folder.file("downlink.db");
        let admin = admin.map(|admin| admin.replace("{folder}", &folder.file("")));
        let mut words = vec!["serve", "--listen", "127.0.0.1:0", "--store", &store];
        words.extend(["--cors-origin", PAGE, "--public", "public/*"]);
        words.extend(keys.flags.iter().chain(&keys.token_flags).map(String::as_str));
        words.extend(admin.iter().flat_map(|address| ["--admin-listen", address]));
        let program = Program::start(&words);
        let tickets = keys.tickets();
        revoke(program.admin.as_ref().unwrap_or(&program.public), &keys).await;
        let sender = Sender { keys, tickets, sends_keys: true };
        Self { program, sender, _folder: folder }
    }

    /// Checks the table of the public listener.
    async fn check_public(&mut self) {
        self.sender.sends_keys = false;
        check("The public listener", &self.program.public, &self.sender).await;
    }
}

const TCP: &str = "127.0.0.1:0";
const SOCKET: &str = "unix:{folder}admin.sock";

#[tokio::test]
async fn the_public_listener_answers_as_its_table_says() {
    Production::start(Some(TCP)).await.check_public().await;
}

#[tokio::test]
async fn the_public_listener_beside_an_admin_socket_answers_as_its_table_says() {
    Production::start(Some(SOCKET)).await.check_public().await;
}

#[tokio::test]
async fn the_admin_listener_on_tcp_answers_as_its_table_says() {
    let server = Production::start(Some(TCP)).await;
    check("The admin listener on TCP", server.program.admin(), &server.sender).await;
}

#[tokio::test]
async fn a_server_with_one_listener_answers_as_the_table_of_the_admin_listener_says() {
    let server = Production::start(None).await;
    check("The admin listener on TCP", &server.program.public, &server.sender).await;
}

#[tokio::test]
async fn the_admin_socket_answers_as_its_table_says() {
    let server = Production::start(Some(SOCKET)).await;
    check("The admin listener on a Unix socket", server.program.admin(), &server.sender).await;
}

#[tokio::test]
async fn a_development_server_answers_as_its_table_says() {
    let folder = Folder::new();
    let keys = Credentials::new(&folder);
    let program = Program::start(&["dev", "--listen", "127.0.0.1:0", "--store", "none"]);
    let listener = &program.public;
    // Only the server knows its ticket key. So the server issues the tickets of this test.
    let tickets = Tickets {
        good: issued(listener, ADA, "30m").await,
        expired: expired(listener).await,
        revoked: issued(listener, EVE, "30m").await,
        ..keys.tickets()
    };
    revoke(listener, &keys).await;
    let sender = Sender { keys, tickets, sends_keys: true };
    check("The development server", listener, &sender).await;
}

/// Lets a development server issue a ticket.
async fn issued(listener: &Place, client: &str, lifetime: &str) -> String {
    let target = format!("/tickets?topic={ROOMS}&client={client}&lifetime={lifetime}");
    let answer = Request::post(target, "").ask(listener).await.json();
    answer["ticket"].as_str().expect("a ticket").to_owned()
}

/// Lets a development server issue a ticket that ends after a millisecond, and waits for its end.
async fn expired(listener: &Place) -> String {
    let target = format!("/tickets?topic={ROOMS}&client={ADA}&lifetime=1ms");
    let answer = Request::post(target, "").ask(listener).await.json();
    let end = answer["expires"].as_u64().expect("milliseconds");
    while now().as_millis() <= end {
        tokio::task::yield_now().await;
    }
    answer["ticket"].as_str().expect("a ticket").to_owned()
}

#[test]
fn the_document_has_four_tables_with_every_cell() {
    let tables = DOCUMENT.matches("\n| request |").count();
    assert_eq!((tables, tables * CELLS), (4, 1064));
}
