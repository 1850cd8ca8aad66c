//! The query API beside real Prometheus servers: what is pushed, asked, read, scraped and answered.
#![cfg(test)]

mod admin;
mod beside;
mod clients;
mod dashboard;
mod hostile;
mod natives;
mod queries;
mod reads;
