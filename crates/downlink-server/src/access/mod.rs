//! Access control: decides which rights a request has.
//!
//! Each listener has a role. [`Control`] verifies the credentials of a request and returns the
//! rights of the request. The routes in `app` check these rights.
//!
//! | module | owns |
//! |---|---|
//! | `settings` | the flags |
//! | `key_files` | the files with keys, which the first start makes |
//! | `role` | the role of a listener: the paths that it serves, and the rights that it gives |
//! | `origin` | the origins of pages, as the settings write them |
//! | `revoked` | the file with the revocations |
//! | `forwarded` | the address of the client behind trusted proxies |
//! | `rates` | the limits against abuse: their flags, and the limiters of requests |
//! | `names` | the number of topics and patterns in the subscriptions of each address |
//! | `ask` | the questions to the app of `--authorize-url` |
//! | `key_sets` | the fetches of the key set of `--jwks-url` |
//! | `outgoing` | the HTTP client of `ask`, `key_sets` and the forwarder of a relay |
//! | `rules` | the parts that a reload replaces, made from the settings and the key files |
//! | `control` | all of the above for one running server: it verifies, asks, counts and revokes |

mod ask;
mod control;
mod forwarded;
mod key_files;
mod key_sets;
#[cfg(test)]
mod local_server;
mod names;
mod origin;
mod outgoing;
mod rates;
mod revoked;
mod role;
mod rules;
mod settings;

pub use ask::AskSettings;
pub(crate) use ask::{Answer, Question};
pub use control::Control;
pub(crate) use control::{Credentials, RevokeError};
pub(crate) use forwarded::ClientAddress;
pub(crate) use key_files::{KeyFiles, PUBLISH_KEY_FILE};
pub(crate) use names::NamesPermit;
pub(crate) use outgoing::client_builder;
pub(crate) use rates::Exceeded;
pub use rates::{AbuseLimits, Limit};
pub use role::Role;
pub(crate) use role::is_open;
pub(crate) use rules::{Rules, check};
pub use settings::AccessSettings;
