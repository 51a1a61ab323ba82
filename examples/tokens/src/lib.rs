//! The answer of a language model, token by token. A reloaded page loses no token and repeats none.
//!
//! The model is simulated (see [`pretend`]). The rest of the example would also work with a real
//! model. The app has a hub, which keeps events and sends them to its clients. Each answer has a
//! topic of the hub. The last event of the answer finishes the topic, so the streams of the answer
//! end. A client that opens an ended answer gets the whole answer. If a client that has read the
//! end reconnects, it gets a 204 and then stops reconnecting. A client can stop an answer, and an
//! answer without readers stops by itself.
//!
//! Answers end with the process. They belong to no user: any client that knows the id of an answer
//! may read the answer and stop it.

mod answer;
mod page;
pub mod pretend;

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

pub use answer::{
    Answers, Ending, Part, RUNNING_MAX, Refused, TOKEN_EVERY, TOKENS_MAX, UNHEARD_MAX,
};

/// The maximum length of a prompt in characters. The answer has a line for each word of the prompt,
/// so a longer prompt would give a very long answer.
pub const PROMPT_CHARS_MAX: usize = 500;

/// The largest request body in bytes. The longest prompt fits, even if a client escapes every
/// character as two `\u` sequences of six bytes.
pub const BODY_BYTES_MAX: usize = 8 * 1_024;

/// Makes the app that serves these answers.
pub fn app(answers: Answers) -> Router {
    Router::new()
        .route("/ask", post(ask))
        .route("/answers/{id}", get(listen))
        .route("/answers/{id}/stop", post(stop))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(answers)
        .merge(page::routes())
}

/// The request for an answer.
#[derive(Deserialize)]
struct Question {
    prompt: String,
}

/// The response to a prompt. It has the id of the answer.
#[derive(Serialize)]
struct Begun {
    id: String,
}

async fn ask(
    State(answers): State<Answers>,
    question: Result<Json<Question>, JsonRejection>,
) -> Result<(StatusCode, Json<Begun>), Problem> {
    let Json(question) = question.map_err(|rejection| unreadable(&rejection))?;
    let prompt = question.prompt.trim();
    let chars = prompt.chars().count();
    if !(1..=PROMPT_CHARS_MAX).contains(&chars) {
        let sentence = format!(
            "The prompt has {chars} characters. Ask something of 1 to {PROMPT_CHARS_MAX} characters."
        );
        return Err(problem(StatusCode::BAD_REQUEST, sentence));
    }
    let id = answers.begin(prompt).map_err(refused)?;
    Ok((StatusCode::ACCEPTED, Json(Begun { id })))
}

fn refused(error: Refused) -> Problem {
    match error {
        Refused::Busy => problem(StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
        Refused::Publish(error) => error.to_problem(),
    }
}

async fn listen(
    State(answers): State<Answers>,
    id: Result<Path<String>, PathRejection>,
    last: LastEventId,
) -> Answer<Subscription<Part>> {
    let Path(id) = id.map_err(|error| problem(error.status(), error.body_text()))?;
    let topic = answers.topic_of(&id).ok_or_else(not_found)?;
    let subscribe = answers.hub().subscribe().topic(topic).start(Start::Earliest).resume(last);
    Ok(subscribe.open().await?)
}

async fn stop(
    State(answers): State<Answers>,
    id: Result<Path<String>, PathRejection>,
) -> Result<StatusCode, Problem> {
    let Path(id) = id.map_err(|error| problem(error.status(), error.body_text()))?;
    answers.topic_of(&id).ok_or_else(not_found)?;
    answers.stop(&id);
    Ok(StatusCode::NO_CONTENT)
}

fn not_found() -> Problem {
    let sentence = "There is no such answer, or it ended long ago. Ask again.";
    problem(StatusCode::NOT_FOUND, sentence.into())
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
            r#"{reason}. Send {{"prompt":"…"}} as application/json, at most {BODY_BYTES_MAX} bytes."#
        ),
    )
}

fn problem(status: StatusCode, sentence: String) -> Problem {
    Problem::new(status).detail(sentence)
}
