//! Metrics in the text format of Prometheus (exposition format 0.0.4): what the cluster is like, as the node that is asked knows it, and
//! what initiators' commands cost at this node.
//!
//! | file | what it holds |
//! |---|---|
//! | `traffic` | counters that every connection adds to |
//! | `page` | the page, out of the status document, this node's own facts, and the counters |
//! | `exposition` | families, samples, labels: the text format itself |
//! | `server` | `GET /metrics` |

mod exposition;
mod page;
mod server;
mod traffic;

pub(crate) use page::Facts;
pub(crate) use server::{routes, serve};
pub(crate) use traffic::{Meter, Operation, Traffic};
