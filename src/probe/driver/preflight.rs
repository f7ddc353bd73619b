//! One exchange before the probe: is there a server, and does it speak the protocol?
//!
//! Turns an unreachable or unfit server into one clear line instead of a table full of
//! noughts. Also sees to it that there are descriptors enough.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

#[cfg(feature = "tls")]
use crate::probe::clients::opening::Greet;
use crate::probe::clients::opening::Opening;
#[cfg(feature = "tls")]
use crate::probe::driver::tls::TlsStream;
use crate::probe::driver::{addresses, clock, proxy};
use crate::probe::error::ProbeError;
use crate::probe::plan::Plan;
use crate::probe::printable::printable;
use crate::probe::protocol::{Conversation, Conversations, FirstExchange};
use crate::probe::watcher::ProgressSink;

/// How long a server that need not answer is given to close a connection that it does not want.
const GLANCE: Duration = Duration::from_millis(200);
/// One read or write.
const PIECE_BYTES: usize = 16 << 10;
/// Between two looks at the clock and at whether the probe was interrupted.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Between two tries where neither side takes or gives anything while a message is being sent.
const BREATH: Duration = Duration::from_millis(1);
/// Descriptors beside those of the clients: standard streams, epoll, `/proc`, the plot.
const OTHER_DESCRIPTORS: u64 = 32;

/// Sees whether the server can be probed, and makes the conversations of its clients.
pub(crate) fn first_exchange(
    plan: &Plan,
    sink: &dyn ProgressSink,
) -> Result<Box<dyn Conversations>, ProbeError> {
    plan.protocol.first_exchange(&mut FirstClients { plan, sink })
}

/// Clients that come before the probe, one for each exchange.
struct FirstClients<'a> {
    plan: &'a Plan,
    sink: &'a dyn ProgressSink,
}

impl FirstExchange for FirstClients<'_> {
    fn message_bytes(&self) -> usize {
        self.plan.size
    }

    fn wrong_answer(&self, why: String) -> ProbeError {
        ProbeError::WrongAnswer {
            address: self.plan.address,
            why,
        }
    }

    fn exchange(&mut self, conversation: &mut dyn Conversation, message: &str) -> Result<(), ProbeError> {
        let mut client = FirstClient::connect(self.plan, self.sink, message)?;
        client.open(self.plan, conversation)?;
        client.exchange(conversation)
    }
}

#[cfg(not(feature = "tls"))]
type Stream = TcpStream;

/// A stream with TLS or without.
#[cfg(feature = "tls")]
enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

#[cfg(feature = "tls")]
impl Stream {
    fn over(tcp: TcpStream, plan: &Plan) -> Self {
        match &plan.tls {
            None => Self::Plain(tcp),
            tls => Self::Tls(Box::new(TlsStream::new(tcp, tls.as_ref()))),
        }
    }

    fn any(&mut self) -> &mut dyn Greet {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => &mut **stream,
        }
    }
}

#[cfg(feature = "tls")]
impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.any().read(buffer)
    }
}

#[cfg(feature = "tls")]
impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.any().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.any().flush()
    }
}

#[cfg(feature = "tls")]
impl Greet for Stream {
    fn write_header(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.any().write_header(bytes)
    }

    fn handshake(&mut self) -> io::Result<()> {
        self.any().handshake()
    }
}

/// One client that connects, asks once, and is gone.
struct FirstClient<'a> {
    address: SocketAddr,
    /// The connection, for its timeouts.
    tcp: TcpStream,
    stream: Stream,
    sink: &'a dyn ProgressSink,
    /// What it sends, in words.
    message: &'a str,
    timeout: Duration,
    deadline: Instant,
}

impl<'a> FirstClient<'a> {
    fn connect(plan: &Plan, sink: &'a dyn ProgressSink, message: &'a str) -> Result<Self, ProbeError> {
        let deadline = clock::now() + plan.timeout;
        let (address, stream) = addresses::connect(&[plan.address], deadline, sink)?;
        let tcp = stream.try_clone().map_err(ProbeError::system("share a socket"))?;
        #[cfg(feature = "tls")]
        let stream = Stream::over(stream, plan);
        Ok(Self {
            address,
            tcp,
            stream,
            sink,
            message,
            timeout: plan.timeout,
            deadline,
        })
    }

    /// Takes the steps that come before the protocol.
    fn open(&mut self, plan: &Plan, conversation: &mut dyn Conversation) -> Result<(), ProbeError> {
        let header = proxy::header(plan, self.tcp.local_addr().ok());
        let mut opening = Opening::new(header, plan.opening.as_slice().into());
        self.block()?;
        loop {
            match opening.drive(&mut self.stream) {
                Ok(true) => break,
                Ok(false) => self.look(|| opening.waits_for())?,
                // A signal; whether it was meant for the probe, the look tells.
                Err(error) if error.kind() == ErrorKind::Interrupted => self.look(|| opening.waits_for())?,
                Err(error) if error.kind() == ErrorKind::InvalidData => {
                    return Err(ProbeError::WrongAnswer {
                        address: self.address,
                        why: printable(&format!("the TLS handshake failed: {error}")),
                    });
                }
                Err(_) => {
                    return Err(ProbeError::ClosedAtOnce {
                        address: self.address,
                        how: "it was still to say what was expected",
                    });
                }
            }
        }
        match opening.into_rest() {
            rest if rest.is_empty() => Ok(()),
            rest => self.receive(conversation, &rest),
        }
    }

    /// Sends one message and reads until it is answered.
    fn exchange(&mut self, conversation: &mut dyn Conversation) -> Result<(), ProbeError> {
        let end = conversation.due_after(0);
        let mut sent = 0;
        let mut piece = vec![0; PIECE_BYTES];
        while sent < end {
            self.free()?;
            let len = (end - sent).min(PIECE_BYTES as u64) as usize;
            conversation.fill(sent, &mut piece[..len]);
            match retry(|| self.stream.write(&piece[..len])) {
                Ok(written) => sent += written as u64,
                Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(BREATH),
                Err(_) => return Err(self.closed("connection reset")),
            }
            if conversation.all_answered(end).is_some() && !self.read_some(conversation, &mut piece)? {
                return Ok(());
            }
            self.look(|| None)?;
        }
        self.block()?;
        while conversation.all_answered(end) == Some(false) {
            if !self.read_some(conversation, &mut piece)? {
                return Ok(());
            }
            self.look(|| None)?;
        }
        match conversation.all_answered(end) {
            None => self.listen_for_a_refusal(),
            Some(_) => Ok(()),
        }
    }

    /// One read; whether there may be more.
    fn read_some(
        &mut self,
        conversation: &mut dyn Conversation,
        piece: &mut [u8],
    ) -> Result<bool, ProbeError> {
        match retry(|| self.stream.read(piece)) {
            Ok(0) if conversation.end_of_stream() > 0 => Ok(false),
            Ok(0) => Err(self.closed("end of file")),
            Ok(len) => self.receive(conversation, &piece[..len]).map(|()| true),
            Err(error) if is_timeout(&error) => Ok(true),
            Err(_) => Err(self.closed("connection reset")),
        }
    }

    fn receive(&self, conversation: &mut dyn Conversation, bytes: &[u8]) -> Result<(), ProbeError> {
        let received = conversation.receive(bytes);
        received
            .map(|_| ())
            .map_err(|corruption| ProbeError::WrongAnswer {
                address: self.address,
                why: printable(&corruption.why),
            })
    }

    /// A server that need not answer may still close a connection that it does not want.
    fn listen_for_a_refusal(&mut self) -> Result<(), ProbeError> {
        self.tcp
            .set_read_timeout(Some(GLANCE))
            .map_err(ProbeError::system("set the timeouts of a socket"))?;
        let mut piece = [0; PIECE_BYTES];
        match retry(|| self.stream.read(&mut piece)) {
            Ok(0) => Err(self.closed("end of file")),
            Ok(_) => Ok(()),
            Err(error) if is_timeout(&error) => Ok(()),
            Err(_) => Err(self.closed("connection reset")),
        }
    }

    /// Lets reads and writes wait, but not for longer than until the next look.
    fn block(&self) -> Result<(), ProbeError> {
        let stream = &self.tcp;
        stream
            .set_nonblocking(false)
            .and_then(|()| stream.set_read_timeout(Some(LOOK_EVERY)))
            .and_then(|()| stream.set_write_timeout(Some(LOOK_EVERY)))
            .map_err(ProbeError::system("set the timeouts of a socket"))
    }

    /// Lets reads and writes not wait at all.
    fn free(&self) -> Result<(), ProbeError> {
        let switched = self.tcp.set_nonblocking(true);
        switched.map_err(ProbeError::system("switch a socket"))
    }

    /// Whether to go on: the time is not over, and nobody interrupted the probe.
    fn look(&self, waits_for: impl FnOnce() -> Option<String>) -> Result<(), ProbeError> {
        if self.sink.is_interrupted() {
            return Err(ProbeError::Interrupted);
        }
        if clock::now() < self.deadline {
            return Ok(());
        }
        Err(ProbeError::NoAnswer {
            address: self.address,
            sent: self.message.to_owned(),
            waited: self.timeout,
            waits_for: waits_for(),
        })
    }

    fn closed(&self, how: &'static str) -> ProbeError {
        ProbeError::ClosedAtOnce {
            address: self.address,
            how,
        }
    }
}

/// A socket with a timeout does not go on by itself after a signal (signal(7)).
fn retry(mut read: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match read() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// Raises this process's descriptor limit as far as it may, and sees whether that is enough.
pub(crate) fn ensure_descriptors(clients: usize) -> Result<(), ProbeError> {
    let needed = clients as u64 + OTHER_DESCRIPTORS;
    let limit = getrlimit(Resource::Nofile);
    let allowed = |current: Option<u64>| current.is_none_or(|current| current >= needed);
    if allowed(limit.current) {
        return Ok(());
    }
    if allowed(limit.maximum) {
        let raised = Rlimit {
            current: Some(needed),
            maximum: limit.maximum,
        };
        return setrlimit(Resource::Nofile, raised).map_err(|errno| ProbeError::System {
            doing: "raise the descriptor limit",
            source: errno.into(),
        });
    }
    Err(ProbeError::TooManyClients {
        clients,
        needed,
        allowed: limit.maximum.unwrap_or(u64::MAX),
    })
}
