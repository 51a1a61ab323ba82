//! Access control: who may do what on which listener.
//!
//! A request comes in through a listener, which has a role. [`Control`] verifies the credentials of
//! the request and answers with its rights. The routes in `app` check these rights.
//!
//! | module | owns |
//! |---|---|
//! | `settings` | the flags |
//! | `key_files` | the files with keys, which the first start makes |
//! | `role` | the role of a listener: the paths that it serves, and the rights that it gives |
//! | `origin` | which pages may use the server |
//! | `revoked` | the file with the revocations |
//! | `ask` | the questions to the app of `--authorize-url` |
//! | `key_sets` | the fetches of the key set of `--jwks-url` |
//! | `outgoing` | the HTTP client for both |
//! | `control` | the verification of credentials, revocations and tickets |

#[cfg_attr(not(test), expect(dead_code, reason = "no command asks the app yet"))]
mod ask;
mod control;
mod key_files;
#[expect(dead_code, reason = "no command fetches key sets yet")]
mod key_sets;
#[cfg(test)]
mod local_server;
mod origin;
mod outgoing;
mod revoked;
mod role;
mod settings;

pub use ask::AskSettings;
pub use control::Control;
pub(crate) use control::{Credentials, RevokeError};
pub(crate) use key_files::{MadeKeys, PUBLISH_KEY_FILE};
pub(crate) use origin::{Origin, Origins, one};
pub use role::Role;
pub(crate) use role::is_open;
pub use settings::AccessSettings;
