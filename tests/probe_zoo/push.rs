//! Servers that send by themselves: feeds at a rate, and a hub that passes on what one says.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::http::unbounded;
use crate::patience::{LOOK, Manners, each_on_a_thread, is_timeout};
use crate::row::Small;

/// How often a feed says something.
const BEAT: Duration = Duration::from_millis(20);

/// What a feed says.
const NEWS: &[u8] = b"news of the day\r\n";

/// What a feed does with what its client does not take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Excess {
    /// Waits, as patient as its manners.
    Wait,
    /// Drops what does not fit into the socket.
    Drop,
    /// Keeps it in memory, without a limit.
    Keep,
}

/// Sends to each client at a rate, for ever.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Feed {
    /// Said as soon as a client connects.
    pub(crate) banner: &'static str,
    /// Waits for a line that contains this.
    pub(crate) login: Option<&'static str>,
    /// Said to one who says something else.
    pub(crate) refusal: &'static str,
    /// And then closes.
    pub(crate) closes_refused: bool,
    pub(crate) bytes_per_second: usize,
    /// All of a second at once.
    pub(crate) in_bursts: bool,
    pub(crate) excess: Excess,
    pub(crate) manners: Manners,
}

impl Feed {
    pub(crate) const fn new(bytes_per_second: usize, manners: Manners) -> Self {
        Self {
            banner: "",
            login: None,
            refusal: "",
            closes_refused: false,
            bytes_per_second,
            in_bursts: false,
            excess: Excess::Wait,
            manners,
        }
    }

    fn client(&self, stream: &TcpStream) -> io::Result<()> {
        self.manners.write(stream, self.banner.as_bytes())?;
        if let Some(login) = self.login {
            let mut line = String::new();
            BufReader::new(stream).read_line(&mut line)?;
            if !line.contains(login) {
                self.manners.write(stream, self.refusal.as_bytes())?;
                return if self.closes_refused {
                    Ok(())
                } else {
                    wait_for_end(stream)
                };
            }
            self.manners.write(stream, b"+OK\r\n")?;
        }
        self.feed(stream)
    }

    fn feed(&self, mut stream: &TcpStream) -> io::Result<()> {
        if self.bytes_per_second == 0 {
            return wait_for_end(stream);
        }
        let beat = if self.in_bursts {
            Duration::from_secs(1)
        } else {
            BEAT
        };
        let queue = (self.excess == Excess::Keep)
            .then(|| unbounded(stream, self.manners))
            .transpose()?;
        if self.excess == Excess::Drop {
            stream.set_nonblocking(true)?;
        }
        let begun = Instant::now();
        let (mut said, mut beats) = (0, 0);
        loop {
            let due = (self.bytes_per_second as f64 * beat.as_secs_f64() * f64::from(beats + 1)) as usize;
            let mut bytes = NEWS.repeat((due - said) / NEWS.len() + 1);
            bytes.truncate(due - said);
            said = due;
            match (&queue, self.excess) {
                (Some(queue), _) => queue.send(bytes).map_err(io::Error::other)?,
                (_, Excess::Drop) => match stream.write(&bytes) {
                    Err(error) if !is_timeout(&error) => return Err(error),
                    _ => {}
                },
                _ => self.manners.write(stream, &bytes)?,
            }
            beats += 1;
            // One that was held up goes on from now, without a flood of what it missed.
            let next = begun + beat * beats;
            match next.checked_duration_since(Instant::now()) {
                Some(wait) => thread::sleep(wait),
                None => thread::sleep(Duration::from_millis(1)),
            }
        }
    }
}

fn wait_for_end(mut stream: &TcpStream) -> io::Result<()> {
    stream.set_read_timeout(None)?;
    let mut rest = [0; 4096];
    while stream.read(&mut rest)? > 0 {}
    Ok(())
}

impl Small for Feed {
    fn serve(&self, listener: TcpListener) {
        let feed = *self;
        each_on_a_thread(&listener, self.manners, move |stream| feed.client(stream));
    }

    fn boxed(&self) -> Box<dyn Small> {
        Box::new(*self)
    }
}

/// How a hub passes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Passing {
    /// To a bounded queue of each subscriber, written by a thread of its own; what does not fit is lost.
    Queued,
    /// The publisher's thread writes to one subscriber after the other.
    InTurn,
    /// To nobody: publishers are thrown out.
    Refused,
}

/// Passes every line that begins with `PUB` on to all who said `SUB`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hub {
    /// Publishers must say LOGIN first.
    pub(crate) asks_publishers: bool,
    pub(crate) passing: Passing,
    pub(crate) manners: Manners,
}

/// Lines that wait for a subscriber at most.
const WAITING_LINES: usize = 4096;

#[derive(Default)]
struct Subscribers {
    queues: Mutex<Vec<SyncSender<Arc<[u8]>>>>,
    streams: Mutex<Vec<TcpStream>>,
}

impl Hub {
    fn client(&self, stream: &TcpStream, all: &Subscribers) -> io::Result<()> {
        stream.set_read_timeout(None)?;
        let mut may_publish = !self.asks_publishers;
        for line in BufReader::new(stream).split(b'\n') {
            let line = line?;
            if line.starts_with(b"LOGIN") {
                may_publish = true;
                continue;
            }
            if line.starts_with(b"SUB") {
                return self.subscribe(stream, all);
            }
            let passing = if may_publish {
                self.passing
            } else {
                Passing::Refused
            };
            match passing {
                Passing::Refused => {
                    self.manners.write(stream, b"-ERR you may not publish\r\n")?;
                    return Ok(());
                }
                Passing::Queued => {
                    let line: Arc<[u8]> = line.into();
                    let mut queues = all.queues.lock().unwrap_or_else(PoisonError::into_inner);
                    queues.retain(|queue| {
                        !matches!(
                            queue.try_send(Arc::clone(&line)),
                            Err(TrySendError::Disconnected(_))
                        )
                    });
                }
                Passing::InTurn => {
                    let mut streams = all.streams.lock().unwrap_or_else(PoisonError::into_inner);
                    streams.retain(|stream| self.manners.write(stream, &line).is_ok());
                }
            }
        }
        Ok(())
    }

    fn subscribe(&self, stream: &TcpStream, all: &Subscribers) -> io::Result<()> {
        self.manners.write(stream, b"+OK\r\n")?;
        if self.passing == Passing::InTurn {
            let mut streams = all.streams.lock().unwrap_or_else(PoisonError::into_inner);
            streams.push(stream.try_clone()?);
            return Ok(());
        }
        let (queue, waiting) = sync_channel(WAITING_LINES);
        all.queues
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(queue);
        self.pass_on(stream, &waiting)
    }

    fn pass_on(&self, stream: &TcpStream, waiting: &Receiver<Arc<[u8]>>) -> io::Result<()> {
        loop {
            match waiting.recv_timeout(LOOK) {
                Ok(line) => self.manners.write(stream, &line)?,
                Err(_) if matches!(peek(stream), Ok(0)) => return Ok(()),
                Err(_) => {}
            }
        }
    }
}

fn peek(stream: &TcpStream) -> io::Result<usize> {
    stream.set_nonblocking(true)?;
    let peeked = stream.peek(&mut [0]);
    stream.set_nonblocking(false)?;
    peeked
}

impl Small for Hub {
    fn serve(&self, listener: TcpListener) {
        let (hub, all) = (*self, Subscribers::default());
        each_on_a_thread(&listener, self.manners, move |stream| hub.client(stream, &all));
    }

    fn boxed(&self) -> Box<dyn Small> {
        Box::new(*self)
    }
}
