//! Only one server at a time can open a store, even if the store's file has several names.

use std::fs;

use crate::{Folder, Server, failing::store_with, server::refused};

#[tokio::test]
async fn a_store_in_use_cannot_be_opened_through_a_hard_link() {
    let folder = Folder::new("link");
    let (store, link) = (folder.file("x.db"), folder.file("y.db"));
    store_with(&store, 1).await;
    fs::hard_link(&store, &link).expect("a link");
    let server = Server::start(&store, &[]);
    let said = refused(&link);
    assert!(said.contains("in use by another process: stop that process"), "{said}");
    server.publish("topic=a", "more").await;
}

#[tokio::test]
async fn a_store_cannot_be_opened_twice_after_its_lock_file_is_removed() {
    let folder = Folder::new("removed-lock");
    let store = folder.file("x.db");
    let server = Server::start(&store, &[]);
    let _ = fs::remove_file(folder.file("x.db-lock"));
    let said = refused(&store);
    assert!(said.contains("in use by another process"), "{said}");
    server.publish("topic=a", "more").await;
}
