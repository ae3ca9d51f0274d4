//! An answer: a status and a body, the same whether it was made here or forwarded.

use super::types::{DoneBody, ErrorBody, OpenedBody};
use crate::decision::view::{Refusal, RefusalCode, Response};
use crate::runtime::handle::Unavailable;
use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::IntoResponse;
use bytes::Bytes;
use serde::Serialize;

/// One JSON answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: StatusCode,
    /// JSON text.
    pub body: Bytes,
}

impl Answer {
    /// A success with this body.
    pub fn ok(body: &impl Serialize) -> Answer {
        Answer::json(StatusCode::OK, body)
    }

    /// Any status with this body.
    pub fn json(status: StatusCode, body: &impl Serialize) -> Answer {
        match serde_json::to_vec(body) {
            Ok(text) => Answer { status, body: text.into() },
            Err(error) => Answer {
                status: StatusCode::INTERNAL_SERVER_ERROR,
                body: format!(r#"{{"code":"internal","text":"cannot encode: {error:?}"}}"#).into(),
            },
        }
    }

    /// A failure: a status, a code for programs and a text for people.
    pub fn error(status: StatusCode, code: &str, text: impl Into<String>) -> Answer {
        Answer::json(status, &ErrorBody { code: code.to_owned(), text: text.into() })
    }

    /// Input that cannot be understood.
    pub fn bad_input(text: impl Into<String>) -> Answer {
        Answer::error(StatusCode::BAD_REQUEST, "bad_input", text)
    }

    /// Nobody leads, or the leader cannot be reached.
    pub fn no_leader(text: impl Into<String>) -> Answer {
        Answer::error(StatusCode::SERVICE_UNAVAILABLE, "no_leader", text)
    }

    /// Too much is being asked at once.
    pub fn busy(text: impl Into<String>) -> Answer {
        Answer::error(StatusCode::TOO_MANY_REQUESTS, "busy", text)
    }
}

impl From<Response> for Answer {
    fn from(response: Response) -> Answer {
        match response {
            Response::Status(view) => Answer::ok(&view),
            Response::Explanation(view) => Answer::ok(&view),
            Response::Events(events) => Answer::ok(&events),
            Response::Procedure(view) => Answer::ok(&view),
            Response::Opened { cluster, procedure } => {
                Answer::json(StatusCode::ACCEPTED, &OpenedBody { cluster, procedure })
            }
            Response::Done { text } => Answer::ok(&DoneBody { text }),
            Response::Refused(refusal) => Answer::from(refusal),
        }
    }
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Answer {
        let (status, code) = match refusal.code {
            RefusalCode::Unknown => (StatusCode::NOT_FOUND, "unknown"),
            RefusalCode::Forbidden => (StatusCode::CONFLICT, "forbidden"),
            RefusalCode::Busy => (StatusCode::TOO_MANY_REQUESTS, "busy"),
            RefusalCode::Undecided => (StatusCode::SERVICE_UNAVAILABLE, "timed_out"),
            // Whoever asked has already been passed on once; leadership is moving.
            RefusalCode::NotLeader | RefusalCode::NoLeader => {
                (StatusCode::SERVICE_UNAVAILABLE, "no_leader")
            }
        };
        Answer::error(status, code, refusal.text)
    }
}

impl From<Unavailable> for Answer {
    fn from(unavailable: Unavailable) -> Answer {
        let code = match unavailable {
            Unavailable::TooSlow => "timed_out",
            Unavailable::Stopped => "stopped",
        };
        Answer::error(StatusCode::SERVICE_UNAVAILABLE, code, unavailable.to_string())
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> axum::response::Response {
        let mut response = axum::response::Response::new(Body::from(self.body));
        *response.status_mut() = self.status;
        let json = HeaderValue::from_static("application/json");
        response.headers_mut().insert(header::CONTENT_TYPE, json);
        response
    }
}
