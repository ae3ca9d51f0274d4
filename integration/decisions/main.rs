//! Decisions as text: situations in, findings, responses, candidates and plans out.

mod cases;
mod documentation;
mod executor;
mod procedures;
mod protection;
mod storage;
