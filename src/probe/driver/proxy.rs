//! The PROXY protocol header that a client sends before all else, as a balancer would.

use std::net::SocketAddr;

use ppp::{v1, v2};

use crate::probe::plan::{Plan, ProxyVersion};

/// The header from a client at `source`; empty where the plan wants none.
pub(crate) fn header(plan: &Plan, source: Option<SocketAddr>) -> Vec<u8> {
    let (Some(version), Some(source)) = (plan.proxy_header, source) else {
        return Vec::new();
    };
    let server = plan.address;
    match version {
        ProxyVersion::V1 => v1::Addresses::from((source, server)).to_string().into_bytes(),
        ProxyVersion::V2 => {
            let command = v2::Version::Two | v2::Command::Proxy;
            let builder = v2::Builder::with_addresses(command, v2::Protocol::Stream, (source, server));
            // Built in memory of its own, which does not fail.
            builder.build().unwrap_or_default()
        }
    }
}
