//! Jobs that report their progress. The page shows a progress bar, and at the end of the job the
//! result or an error. A reloaded page shows the same job.
//!
//! The app has a hub, which keeps events and sends them to its clients. Each job has a topic of the
//! hub. Each event of the topic has the whole state of the job, so a new reader needs only the
//! newest event. The last event finishes the topic: its streams end, and no further event can be
//! published to it. If a client that has read the last event reconnects, it gets a 204 and then
//! stops reconnecting.
//!
//! Jobs end with the process. They belong to no user: any client that knows the id of a job may
//! watch the job.

mod job;
mod page;

use axum::{
    Json, Router,
    extract::{
        DefaultBodyLimit, Path, State,
        rejection::{JsonRejection, PathRejection},
    },
    http::StatusCode,
    response::Result as Answer,
    routing::{get, post},
};
use downlink::{LastEventId, Subscription, http::Problem, hub::Start};
use serde::{Deserialize, Serialize};

pub use job::{JOBS_MAX, Jobs, NUMBER_MAX, NUMBERS_MAX, Progress, Refused};

/// The largest request body in bytes. It has room for 2,000 ASCII characters, the maximum of the
/// text field of the page.
pub const BODY_BYTES_MAX: usize = 4 * 1_024;

/// Makes the app that runs these jobs.
pub fn app(jobs: Jobs) -> Router {
    Router::new()
        .route("/jobs", post(start))
        .route("/jobs/{id}/events", get(watch))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(jobs)
        .merge(page::routes())
}

/// The request for a new job.
#[derive(Deserialize)]
struct Order {
    /// One number per line.
    numbers: String,
}

/// The answer to a request that started a job.
#[derive(Serialize)]
struct Started {
    id: String,
    steps: usize,
}

async fn start(
    State(jobs): State<Jobs>,
    order: Result<Json<Order>, JsonRejection>,
) -> Result<(StatusCode, Json<Started>), Problem> {
    let Json(order) = order.map_err(|rejection| unreadable(&rejection))?;
    let numbers: Vec<String> = order
        .numbers
        .lines()
        .map(|line| line.trim().to_owned())
        .filter(|line| !line.is_empty())
        .collect();
    let steps = numbers.len();
    let id = jobs.start(numbers).map_err(refused)?;
    Ok((StatusCode::ACCEPTED, Json(Started { id, steps })))
}

fn refused(error: Refused) -> Problem {
    match error {
        Refused::Steps { .. } => problem(StatusCode::BAD_REQUEST, error.to_string()),
        Refused::Busy => problem(StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
        Refused::Publish(error) => error.to_problem(),
    }
}

async fn watch(
    State(jobs): State<Jobs>,
    id: Result<Path<String>, PathRejection>,
    last: LastEventId,
) -> Answer<Subscription<Progress>> {
    let Path(id) = id.map_err(|error| problem(error.status(), error.body_text()))?;
    let Some(topic) = jobs.topic_of(&id) else {
        let sentence = "There is no such job, or it ended long ago. Start another one.";
        return Err(problem(StatusCode::NOT_FOUND, sentence.into()).into());
    };
    let subscribe = jobs.hub().subscribe().topic(topic).start(Start::Last(1)).resume(last);
    Ok(subscribe.open().await?)
}

/// The answer to a request with an invalid body.
fn unreadable(rejection: &JsonRejection) -> Problem {
    let status = match rejection {
        JsonRejection::JsonDataError(_) => StatusCode::BAD_REQUEST,
        other => other.status(),
    };
    let reason = rejection.body_text();
    problem(
        status,
        format!(
            r#"{reason}. Send {{"numbers":"12\n97"}} as application/json, at most {BODY_BYTES_MAX} bytes."#
        ),
    )
}

fn problem(status: StatusCode, sentence: String) -> Problem {
    Problem::new(status).detail(sentence)
}
