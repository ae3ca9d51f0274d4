//! The proxy: applications connect to it as if it were their database server.

pub mod routes;
