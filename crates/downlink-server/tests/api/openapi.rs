//! Compares `docs/openapi.json` with a server and with its code: every route, every method, every
//! parameter and every problem code of one side is in the other.

use std::{collections::BTreeSet, fs, path::Path};

use serde_json::{Map, Value};

use crate::Server;

const DOCUMENT: &str = include_str!("../../../../docs/openapi.json");
const ROUTES: &str = include_str!("../../src/app/mod.rs");
const API: &str = include_str!("../../../../docs/HTTP.md");

/// The methods of HTTP that the test tries at each path. `HEAD` and `OPTIONS` belong to `GET`.
const METHODS: [&str; 5] = ["DELETE", "GET", "PATCH", "POST", "PUT"];

fn document() -> Value {
    serde_json::from_str(DOCUMENT).expect("JSON")
}

fn paths(document: &Value) -> &Map<String, Value> {
    document["paths"].as_object().expect("paths")
}

fn strings<'a>(texts: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
    texts.into_iter().map(str::to_owned).collect()
}

/// The names of the parameters in the query of an operation.
fn parameters(operation: &Value) -> BTreeSet<String> {
    let all = operation["parameters"].as_array().map_or(&[][..], Vec::as_slice);
    let in_query = all.iter().filter(|parameter| parameter["in"] == "query");
    strings(in_query.map(|parameter| parameter["name"].as_str().expect("a name")))
}

/// The two paths that the router gets from the list of the page's files.
const OF_THE_PAGE: [&str; 2] = ["/", "/downlink.js"];

#[test]
fn the_document_has_every_path_of_the_router() {
    let routes = ROUTES.split(".route(\"").skip(1).filter_map(|rest| rest.split('"').next());
    let document = document();
    let documented = strings(paths(&document).keys().map(String::as_str));
    assert_eq!(documented, strings(routes.chain(OF_THE_PAGE)));
}

#[tokio::test]
async fn the_document_has_every_method_and_parameter_of_the_server() {
    let server = Server::start().await;
    for (path, operations) in paths(&document()) {
        for method in METHODS {
            let answer = server.ask(method, &format!("{path}?qqqqqqqqqqqqqqqq=1"), "", "").await;
            let Some(operation) = operations.get(method.to_lowercase()) else {
                answer.problem(405);
                continue;
            };
            // The server lists all parameters if none has a similar name.
            let said = answer.problem(400);
            let listed = said.split_once("The parameters are: ");
            let listed = listed.map_or("", |(_, names)| names.trim_end_matches('.'));
            assert_eq!(listed.is_empty(), said.contains("takes no parameters"), "{said}");
            let known = strings(listed.split(", ").filter(|name| !name.is_empty()));
            assert_eq!(parameters(operation), known, "{method} {path}");
            assert!(operation["responses"]["400"].is_object(), "{method} {path}");
        }
    }
}

/// The codes that the code of the server gives to problems.
fn codes_of_the_code() -> BTreeSet<String> {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a folder");
    let mut files = vec![crates.join("downlink-access/src/error.rs")];
    let app = fs::read_dir(crates.join("downlink-server/src/app")).expect("a folder");
    files.extend(app.map(|entry| entry.expect("an entry").path()));
    let mut codes = BTreeSet::new();
    for file in files {
        let text = fs::read_to_string(&file).expect("a source file");
        for before in [
            "(400, \"",
            "(401, \"",
            "(403, \"",
            "(503, \"",
            ".code(\"",
            "StatusCode::UNAUTHORIZED, \"",
            "StatusCode::FORBIDDEN, \"",
            "StatusCode::SERVICE_UNAVAILABLE, \"",
        ] {
            let found = text.split(before).skip(1).filter_map(|rest| rest.split('"').next());
            let is_code = |text: &&str| text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
            codes.extend(found.filter(is_code).map(str::to_owned));
        }
    }
    codes
}

#[test]
fn the_document_and_the_page_of_the_api_have_every_problem_code_of_the_code() {
    let document = document();
    let listed = document["components"]["schemas"]["Problem"]["properties"]["code"]["enum"]
        .as_array()
        .expect("the codes");
    let listed = strings(listed.iter().map(|code| code.as_str().expect("text")));
    assert_eq!(listed, codes_of_the_code());
    let rows = API.lines().filter_map(|line| {
        let (status, rest) = line.strip_prefix("| ")?.split_once(" | `")?;
        let (codes, _) = rest.split_once("` | ")?;
        (status.len() == 3 && status.parse::<u16>().is_ok()).then_some(codes)
    });
    let rows = rows.flat_map(|codes| codes.split("`, `"));
    assert_eq!(listed, strings(rows), "the table of codes in docs/HTTP.md");
}

#[test]
fn operations_have_unique_names_and_each_reference_has_a_target() {
    let document = document();
    let mut names = BTreeSet::new();
    for operation in paths(&document).values().flat_map(|path| path.as_object().expect("a path")) {
        let name = operation.1["operationId"].as_str().expect("a name");
        assert!(names.insert(name.to_owned()), "{name} is not unique");
    }
    for reference in DOCUMENT.split("\"$ref\": \"#").skip(1) {
        let pointer = reference.split('"').next().expect("a reference");
        assert!(document.pointer(pointer).is_some(), "{pointer}");
    }
}
