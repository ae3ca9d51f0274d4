//! The HTTP API: endpoints for people and programs, and the client that the command line uses.

pub mod answer;
pub mod client;
pub mod endpoints;
pub mod forward;
pub mod guard;
pub mod input;
pub mod server;
pub mod types;

pub use server::{ServeError, serve, serve_metrics, serve_on};
