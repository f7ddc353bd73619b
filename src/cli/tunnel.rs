//! `highwater tunnel`: its arguments, and the service that they ask for.

use clap::Args;
use highwater::limits;
use highwater::services::{AddressRange, ProxyProtocol, Target, Tunnel};
use highwater::units::format_time;
use highwater::{Limits, Remote};

use super::arguments::ServingArguments;
use super::options::{ListenArgs, ServingArgs};
use super::parse::{Size, Time};
use super::sentences;
use super::serve::Serving;

/// The arguments of `highwater tunnel`.
#[derive(Debug, Args)]
pub(crate) struct TunnelArgs {
    /// Connect each client to this server, such as `redis:6379`,
    /// `127.0.0.1:80` or `[::1]:80`. A name is looked up once a minute and
    /// after failures; of its addresses the first to answer is taken.
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) to: Target,
    /// Reset a client that has no connection to the other server after this
    /// time; until then refused connections are tried again.
    #[arg(long, value_name = "TIME", default_value_t = Time(limits::CONNECT_TIMEOUT))]
    pub(crate) connect_timeout: Time,
    /// Disconnect a pair whose server has taken too little for this long; a
    /// server may pause for a lock, a checkpoint or loading.
    #[arg(long, value_name = "TIME", default_value_t = Time(limits::UPSTREAM_GRACE))]
    pub(crate) upstream_grace: Time,
    /// Disconnect a pair in which one side has ended and nothing has moved for
    /// this long.
    #[arg(long, value_name = "TIME", default_value_t = Time(limits::HALF_CLOSED_TIMEOUT))]
    pub(crate) half_closed_timeout: Time,
    /// Disconnect a pair for which nothing is queued and nothing has moved
    /// either way for this long [default: idle clients stay]
    #[arg(long, value_name = "TIME")]
    pub(crate) idle_timeout: Option<Time>,
    /// After a read of at least this many bytes, have the kernel move the
    /// bytes that follow from socket to socket (splice); 0 copies everything.
    #[arg(long, value_name = "SIZE", default_value_t = Size(limits::SPLICE_FROM_BYTES))]
    pub(crate) splice_from: Size,
    /// Send each client's address to the other server in a PROXY protocol
    /// header in front of the stream [default: no header]
    #[arg(long, value_enum, value_name = "VERSION")]
    pub(crate) proxy_protocol: Option<ProxyProtocol>,
    /// Take a PROXY protocol header, version 1 or 2, from each client: log and
    /// other server then see the client that it names.
    #[arg(long)]
    pub(crate) accept_proxy_protocol: bool,
    /// Take that header from this address or range only, and refuse all other
    /// clients; may be given several times [default: this machine]
    #[arg(long, value_name = "ADDRESS[/BITS]")]
    pub(crate) proxy_from: Vec<AddressRange>,
    /// Where to listen.
    #[command(flatten)]
    pub(crate) listen: ListenArgs,
    /// What all servers share.
    #[command(flatten)]
    pub(crate) serving: ServingArgs,
}

impl TunnelArgs {
    fn unused_proxy_from(&self) -> Option<String> {
        let first = self.proxy_from.first().filter(|_| !self.accept_proxy_protocol)?;
        Some(format!(
            "--proxy-from {first} says who may send a PROXY header, and none is taken: add \
             --accept-proxy-protocol, or leave it out"
        ))
    }

    /// A half-closed timeout that was typed, and that no pair lives to see.
    fn unreachable_half_closed_timeout(&self) -> Option<String> {
        let (half_closed, idle) = (self.half_closed_timeout.0, self.idle_timeout?.0);
        (half_closed > idle && half_closed != limits::HALF_CLOSED_TIMEOUT).then(|| {
            format!(
                "--half-closed-timeout {} is above --idle-timeout {}, which ends every idle pair first: \
                 lower the one or raise the other",
                format_time(half_closed),
                format_time(idle),
            )
        })
    }
}

impl ServingArguments for TunnelArgs {
    const SUBCOMMAND: &'static str = "tunnel";

    fn shared(&self) -> (&ListenArgs, &ServingArgs) {
        (&self.listen, &self.serving)
    }

    fn limits(&self, shared: Limits) -> Limits {
        Limits {
            connect_timeout: self.connect_timeout.0,
            upstream_grace: self.upstream_grace.0,
            half_closed_timeout: self.half_closed_timeout.0,
            idle_timeout: self.idle_timeout.map(|time| time.0),
            splice_from_bytes: self.splice_from.0,
            ..shared
        }
    }

    fn contradiction(&self, limits: &Limits) -> Option<String> {
        sentences::of_unreachable_limit(limits)
            .or_else(|| sentences::of_unreachable_splice(self.splice_from.0))
            .or_else(|| self.unused_proxy_from())
            .or_else(|| self.unreachable_half_closed_timeout())
    }
}

impl Serving for TunnelArgs {
    type Arguments = Self;
    type Service = Tunnel;
    const DONE: &'static str = "carried";

    fn arguments(&self) -> &Self {
        self
    }

    fn service(self, remote: Remote) -> Tunnel {
        let tunnel = Tunnel::new(self.to, self.connect_timeout.0, remote)
            .with_proxy_protocol(self.proxy_protocol)
            .with_slow_upstream_advice("a longer --upstream-grace keeps it");
        if !self.accept_proxy_protocol {
            return tunnel;
        }
        let mut from = self.proxy_from;
        if from.is_empty() {
            from.extend(AddressRange::LOOPBACK);
        }
        tunnel.accepting_proxy_protocol(from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: TunnelArgs,
    }

    fn limits(args: &TunnelArgs) -> Limits {
        ServingArguments::limits(args, args.serving.limits())
    }

    fn tunnel(arguments: &[&str]) -> Result<TunnelArgs, String> {
        let line = Line::try_parse_from(["tunnel"].iter().chain(arguments));
        line.map(|line| line.args).map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn a_tunnel_needs_to_know_where_to_and_has_defaults_for_the_rest() {
        let args = tunnel(&["--to", "redis:6379"]).unwrap();
        assert_eq!(args.to.to_string(), "redis:6379");
        assert_eq!(args.proxy_protocol, None);
        assert_eq!(limits(&args), Limits::default());
        assert!(tunnel(&[]).unwrap_err().contains("--to"));
        let refusal = tunnel(&["--to", "redis"]).unwrap_err();
        assert!(refusal.contains("the port is missing"), "{refusal}");
    }

    #[test]
    fn a_tunnel_has_a_connect_timeout_and_two_versions_of_the_proxy_protocol() {
        let args = tunnel(&["--to=[::1]:1", "--connect-timeout=250ms", "--proxy-protocol=v2"]).unwrap();
        assert_eq!(limits(&args).connect_timeout.as_millis(), 250);
        assert_eq!(args.proxy_protocol, Some(ProxyProtocol::V2));
        let args = tunnel(&["--to=[::1]:1", "--connect-timeout=0s"]).unwrap();
        assert!(sentences::of_limits(&limits(&args).check().unwrap_err()).contains("--connect-timeout 0"));
        assert!(tunnel(&["--to=[::1]:1", "--proxy-protocol=v3"]).is_err());
    }
}
