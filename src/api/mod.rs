//! The HTTP API: endpoints for people and programs, and the client that the command line uses.
