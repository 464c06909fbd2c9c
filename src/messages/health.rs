//! Messages of the health conversation: subsystems report, the HTTP surface and the control
//! socket ask.

use super::message;
use crate::proto::health::{NodeHealth, SubsystemReport};

/// Subsystem to the health actor, at least every
/// [`REPORT_EVERY`](crate::proto::health::REPORT_EVERY). Gossip class: a lost one is made good by
/// the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportHealth(pub SubsystemReport);

message!(ReportHealth => ());

/// Anyone to the health actor: how is the node?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GetHealth;

message!(GetHealth => NodeHealth);
