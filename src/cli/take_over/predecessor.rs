//! The successor's side: listening sockets from the server that runs.
//!
//! Refuses to wait for ever: a server that does not answer is named, and this
//! one does not start.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use highwater::limits::TAKE_OVER_ANSWER_TIMEOUT;
use log::{info, warn};
use socket2::{Domain, SockRef};

use super::channel::{Channel, Message, refuse_other_files};
use super::{ACCEPTING, REFUSED, REQUEST, SOCKETS, YOURS};
use crate::cli::sockets::Sockets;

/// The server that runs, which waits for us to accept.
#[derive(Debug)]
pub(crate) struct Predecessor {
    channel: Channel,
    sockets: Sockets,
}

/// Asks the server at `path` for its listening sockets. `None` if no server
/// runs there.
///
/// # Errors
///
/// One sentence: the server is another user's, or gives no usable answer.
pub(crate) fn find(path: &Path) -> Result<Option<Predecessor>, String> {
    let refuse = |why: &dyn std::fmt::Display| format!("--take-over {}: {why}", path.display());
    refuse_other_files(path).map_err(|error| refuse(&error))?;
    let channel = match Channel::connect(path) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
            info!(event = "take_over"; "no server to take over from at {}", path.display());
            return Ok(None);
        }
        outcome => outcome.map_err(|error| refuse(&error))?,
    };
    let pid = channel.pid;
    let offered = channel
        .send(REQUEST, &[])
        .and_then(|()| channel.receive(TAKE_OVER_ANSWER_TIMEOUT));
    let sockets = offered
        .map_err(|error| refuse(&format!("process {pid} does not answer: {error}")))
        .and_then(|offer| sockets_of(offer).map_err(|why| refuse(&format!("process {pid} {why}"))))?;
    Ok(Some(Predecessor { channel, sockets }))
}

/// The sockets of an offer.
fn sockets_of(offer: Message) -> Result<Sockets, String> {
    if let Some(why) = offer.text.strip_prefix(REFUSED) {
        return Err(format!("refuses: {why}"));
    }
    let mut lines = offer.text.lines();
    if lines.next() != Some(SOCKETS) {
        return Err("is no server that can be taken over from".to_owned());
    }
    let names: Vec<_> = lines.collect();
    if names.len() != offer.descriptors.len() {
        let (names, sockets) = (names.len(), offer.descriptors.len());
        return Err(format!("passed {sockets} sockets and {names} names"));
    }
    let mut sockets = Sockets::default();
    for (name, descriptor) in names.into_iter().zip(offer.descriptors) {
        let socket = SockRef::from(&descriptor);
        let is_tcp = matches!(socket.domain(), Ok(Domain::IPV4 | Domain::IPV6));
        if !is_tcp || !matches!(socket.is_listener(), Ok(true)) {
            return Err(format!("passed a socket `{name}` that does not listen for TCP"));
        }
        sockets.add_known(name, TcpListener::from(descriptor));
    }
    Ok(sockets)
}

impl Predecessor {
    /// Takes the sockets for the addresses that are asked for, out of those and
    /// out of what was passed. Sockets that nobody asks for are closed with a
    /// line; addresses without a socket are left, to be listened on anew.
    pub(crate) fn take(&mut self, serving: &mut Vec<SocketAddr>, admin: &mut Vec<SocketAddr>) -> Sockets {
        let sockets = std::mem::take(&mut self.sockets);
        let taken = Sockets {
            serving: take_asked(sockets.serving, serving, "--host and --port"),
            admin: take_asked(sockets.admin, admin, "--admin"),
        };
        let (pid, count) = (self.channel.pid, taken.named().count());
        info!(event = "take_over"; "taking {count} listening sockets over from process {pid}");
        taken
    }

    /// Says that we accept. From then on the predecessor accepts nobody.
    ///
    /// # Errors
    ///
    /// One sentence, if the sockets went to somebody else meanwhile.
    pub(crate) fn say_accepting(self) -> Result<(), String> {
        let pid = self.channel.pid;
        // A predecessor that has refused meanwhile listens no more, and what it
        // said is still there.
        let _ = self.channel.send(ACCEPTING, &[]);
        match self.channel.receive(TAKE_OVER_ANSWER_TIMEOUT) {
            Ok(answer) if answer.text == YOURS => {
                info!(event = "take_over"; "process {pid} has left its listening sockets to us");
                Ok(())
            }
            Ok(answer) => Err(format!(
                "--take-over: process {pid} does not leave its sockets to us: {}",
                answer
                    .text
                    .strip_prefix(REFUSED)
                    .unwrap_or("it speaks another language")
            )),
            // The sockets are ours all the same.
            Err(error) => {
                let why = gone(&error);
                warn!(event = "take_over"; "process {pid} {why} before it left its listening sockets to us");
                Ok(())
            }
        }
    }
}

/// Those of the listeners that are asked for. Their addresses are asked for no
/// more.
fn take_asked(listeners: Vec<TcpListener>, asked: &mut Vec<SocketAddr>, options: &str) -> Vec<TcpListener> {
    let mut is_asked = |listener: &TcpListener| {
        let Ok(bound) = listener.local_addr() else {
            return false;
        };
        let place = asked.iter().position(|asked| is_same(*asked, bound));
        if let Some(place) = place {
            asked.remove(place);
        } else {
            warn!(event = "take_over"; "leaving {bound}, which is not asked for any more: see {options}");
        }
        place.is_some()
    };
    listeners
        .into_iter()
        .filter(|listener| is_asked(listener))
        .collect()
}

fn gone(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::TimedOut => "has not answered",
        _ => "has ended",
    }
}

/// Whether a socket is the one that was asked for; port 0 takes any.
fn is_same(asked: SocketAddr, bound: SocketAddr) -> bool {
    asked.ip() == bound.ip() && (asked.port() == bound.port() || asked.port() == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(text: &str, descriptors: Vec<std::os::fd::OwnedFd>) -> Result<usize, String> {
        let message = Message {
            text: text.to_owned(),
            descriptors,
        };
        sockets_of(message).map(|sockets| sockets.named().count())
    }

    #[test]
    fn an_offer_has_a_name_for_each_listening_socket_and_unknown_names_are_left_alone() {
        let listening = || TcpListener::bind("127.0.0.1:0").unwrap().into();
        let datagrams = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(
            offer("sockets 1\nlisten\nlisten", vec![listening(), listening()]),
            Ok(2)
        );
        assert_eq!(
            offer("sockets 1\nlisten\nlater", vec![listening(), listening()]),
            Ok(1)
        );
        assert!(
            offer("sockets 1\nlisten", vec![])
                .unwrap_err()
                .contains("0 sockets and 1 names")
        );
        assert!(
            offer("sockets 1\nlisten", vec![datagrams.into()])
                .unwrap_err()
                .contains("does not listen")
        );
        assert!(offer("sockets 2", vec![]).unwrap_err().contains("no server"));
        assert!(
            offer("refused: it stops", vec![])
                .unwrap_err()
                .contains("it stops")
        );
    }

    #[test]
    fn a_socket_is_taken_for_its_address_and_any_port_will_do_for_port_0() {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        assert!(is_same(address("127.0.0.1:9000"), address("127.0.0.1:9000")));
        assert!(is_same(address("127.0.0.1:0"), address("127.0.0.1:9000")));
        assert!(!is_same(address("127.0.0.1:9001"), address("127.0.0.1:9000")));
        assert!(!is_same(address("[::1]:9000"), address("127.0.0.1:9000")));
    }
}
